"""A streaming client, with a digest of the received events in order, and its view of the channel."""

from __future__ import annotations

import hashlib
import time

import anyio
import msgspec

from openguild_proto.client import Delivered, Opened, StreamEvent
from openguild_proto.client.view import ChannelView
from openguild_runtime.client import Client
from openguild_runtime.client.subscription import Subscription
from tests.scenarios.chaos.load import Load


class _Frame(msgspec.Struct):
    sequence: int
    event: msgspec.Raw


class _Content(msgspec.Struct):
    content: str | None = None
    target: str | None = None
    redacted_by: str | None = None


class _Event(msgspec.Struct):
    event_id: str
    event_type: str
    content: _Content


_frames, _events = msgspec.json.Decoder(_Frame), msgspec.json.Decoder(_Event)
TEXTS = ("message", "message.edited")


class Reader:
    """A reader. `count`, `digest` and `view` cover the channel from its beginning; the other numbers cover everything received.

    `silence` and `latest_text`: the longest since `measure_anew`, in seconds (see Outcome).
    """

    subscription: Subscription

    def __init__(self, client: Client, channel_id: str, load: Load) -> None:
        self.channel_id = channel_id
        self.opens = self.deliveries = self.out_of_order = self.gaps = self.repeated = self.taken_back = 0
        self.last = time.monotonic()
        self.silence = self.latest_text = 0.0
        self._client = client
        self._load = load
        self._begin()

    def _begin(self) -> None:
        self.subscription = self._client.subscribe(self.channel_id, since=0)
        self.view = ChannelView()
        self.digest = hashlib.blake2b(digest_size=16)
        self.count = 0
        self._reading = anyio.CancelScope()

    async def run(self) -> None:
        """Follow the channel until cancelled."""
        while True:
            with self._reading:
                async with self.subscription as subscription:
                    while True:
                        self._take(await subscription.next_event())
            self.add_up()
            self._begin()

    def begin_again(self) -> None:
        """Discard everything, and read the channel from its first event again."""
        self._reading.cancel()

    def add_up(self) -> None:
        """Add the counts of this subscription to the totals."""
        self.gaps += self.subscription.state.gaps
        self.repeated += self.subscription.state.repeats

    def measure_anew(self) -> None:
        self.silence, self.latest_text, self.last = 0.0, 0.0, time.monotonic()

    def _take(self, event: StreamEvent) -> None:
        if isinstance(event, Delivered):
            now = time.monotonic()
            self.silence = max(self.silence, now - self.last)
            self.last = now
            self._fold(_frames.decode(event.payload), now)
        elif isinstance(event, Opened):
            self.opens += 1

    def _fold(self, frame: _Frame, now: float) -> None:
        self.count += 1
        self.deliveries += 1
        wire = bytes(frame.event)
        event = _events.decode(wire)
        self.digest.update(event.event_id.encode())
        if frame.sequence != self.view.head + 1:
            self.out_of_order += 1
            return
        self.view.apply(frame.sequence, wire)
        if event.event_type not in TEXTS:
            return
        if event.content.redacted_by is not None:
            self.taken_back += 1
        elif (answered := self._load.redacted.get(event.content.target or event.event_id)) is not None:
            self.latest_text = max(self.latest_text, now - answered)
