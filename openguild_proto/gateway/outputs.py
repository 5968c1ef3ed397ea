"""The outputs of one socket: its actions, its messages, and its gate in `Feeds`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.actions import AnyAction, ReadPage, Write
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.feeds import Feed, Feeds
from openguild_proto.gateway.frames import Err, ServerFrame
from openguild_proto.gateway.hint_frames import HintFrames
from openguild_proto.gateway.outgoing import Outgoing


class SocketOutputs:
    """The outputs of one socket; also the handler of its subscriptions.

    `number`: of the last action that needs an answer. `wake` is called when the first action is queued.
    """

    __slots__ = ("_feeds", "_handle", "_wake", "actions", "holds", "number", "outgoing", "user_id")

    def __init__(self, feeds: Feeds, handle: int, encoding: Encoding, wake: Callable[[], None]) -> None:
        self.user_id: str | None = None  # the authenticated user
        self._feeds = feeds
        self._handle = handle
        self.actions: deque[AnyAction] = deque()
        self.outgoing = Outgoing(encoding)
        self.number = 0
        self.holds = 0  # while above 0, events wait; other messages are sent
        self._wake = wake

    def act(self, action: AnyAction) -> None:
        """Queue an action."""
        self.actions.append(action)
        if len(self.actions) == 1:
            self._wake()

    def next_number(self) -> int:
        """Return the number for the next action that needs an answer."""
        self.number += 1
        return self.number

    def say(self, frame: ServerFrame) -> None:
        """Queue a frame."""
        self.outgoing.add(frame)
        self.has_output()

    def refuse(self, ref: int, code: ErrorCode, message: str | None = None, log: str | None = None) -> None:
        """Queue an `err`. `message` None: the message of the code."""
        self.say(Err(ref, code.spec.code, message or code.spec.message, log))

    def has_output(self) -> None:
        """Shut the gate and request `next_write`."""
        gates = self._feeds.gates
        if self._handle >= 0 and (self.holds or not gates[self._handle]):
            gates[self._handle] = 1
            self.act(Write())

    def all_written(self) -> None:
        """Open the gate, so that flushes may write."""
        if self._handle >= 0:
            self._feeds.gates[self._handle] = 0

    def hold(self, count: int) -> None:
        """Add `count` holds (negative: release them), and request `next_write`, which opens the gate if no hold is left."""
        self.has_output()
        self.holds += count

    def end(self) -> None:
        """Stop using the handle, which may be reused by another socket from now on."""
        self._handle = -1

    def read_page(self, feed: Feed, after: int, limit: int) -> None:
        """Request a page of a log."""
        self.act(ReadPage(feed, after, limit))

    def offer(self, hints: HintFrames) -> None:
        """Queue hints about other users, unless too many unsent hints are queued or the socket must not receive them."""
        if self.holds and hints.momentary:
            return
        messages = hints.for_user(self.user_id)
        if messages and self.outgoing.offer(messages):
            self.has_output()
