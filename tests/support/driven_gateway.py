"""A gateway socket of a driven replica, whose client reads everything at once, or is stuck."""

from __future__ import annotations

import itertools
import json
from typing import Any

from openguild_proto.gateway.actions import Authenticate, Close, CountReads, Grant, Run, Write
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Ready, ReadySession, ReadyUser
from openguild_proto.gateway.server import GatewayServer
from openguild_proto.replica.actions import FlushFeed
from openguild_proto.sessions.tokens import Claims
from openguild_proto.timestamps import from_millis
from openguild_proto.ws.frames import frame_payload, message_end
from tests.support.driven_replica import Driven

_handles = itertools.count()
_clients: dict[int, GatewayClient] = {}  # handle -> client
SPAN_BYTES = 4_096
EXPIRES_US = 10**12


class GatewayClient:
    """`frames`: the decoded frames that have arrived. `closed`: the close code, once the server has chosen one."""

    address = "192.0.2.1"

    def __init__(self, driven: Driven, user: str, session: str = "session", encoding: Encoding = Encoding.JSON) -> None:
        self.driven = driven
        self.frames: list[dict[str, Any]] = []
        self.runs: list[Run] = []
        self.closed: int | None = None
        self.stuck = False
        self._data = b""
        self._rest = b""
        self.claims: Claims | None = Claims(session, user, "alice", 0, EXPIRES_US, driven.keys.signing.public)
        self._is_awake = True
        handle = next(_handles)
        _clients[handle] = self
        self.server = GatewayServer(
            driven.replica.gateway.feeds, encoding, handle=handle, wake=self.wake, now=driven.now, wall_ms=0, token="t"
        )  # fmt: skip
        self._gateway.opened(self)
        self.attend()

    @property
    def _gateway(self) -> Any:
        return self.driven.replica.gateway_at(self.driven.now)

    def wake(self) -> None:
        """Note that the machine has actions."""
        self._is_awake = True

    def attend(self) -> None:
        """Carry out the actions of the machines and the replica until there are none."""
        clients = [client for client in _clients.values() if client.driven is self.driven]
        while True:
            self.driven.perform_actions()
            flushed = self._flush()
            awake = [client for client in clients if client._is_awake]
            for client in awake:
                client._act()
            if not awake and not flushed:
                return

    def _act(self) -> None:
        self._is_awake = False
        while (action := self.server.next_action()) is not None:
            match action:
                case CountReads(number=number):
                    self.server.reads_counted(number, None, self.driven.now)
                case Authenticate(number=number):
                    assert self.claims is not None
                    user, session = (
                        ReadyUser(self.claims.user_id, "alice"),
                        ReadySession(self.claims.session_id, from_millis(0)),
                    )
                    self.server.authenticated(
                        number, Grant(Ready(user, session, [], []), self.driven.now + 3_600.0), self.driven.now
                    )
                    self._gateway.authenticated(self)
                case Run():
                    self.runs.append(action)
                case Write():
                    self.write()
                case Close(code=code):
                    self.write()
                    self.closed = int(code)
                    self.leave()
                case _:
                    self._gateway.do(self, action)

    def _flush(self) -> bool:
        flushes = self.driven.taken(FlushFeed)
        for flush in flushes:
            feeds = self.driven.replica.gateway.feeds
            if feeds.hub.is_open(flush.key):
                while feeds.flush(flush.key, 100, SPAN_BYTES, lambda handle, data: _clients[handle]._take(data))[1]:
                    pass
                feeds.hub.flushed(flush.key)
                feeds.end_overrun(flush.key)
        return bool(flushes)

    def _take(self, messages: bytes) -> int:
        if self.stuck:
            return 0
        self._receive(messages)
        return len(messages)

    def write(self) -> None:
        """Read the machine's output, unless the client is stuck."""
        while not self.stuck and (data := self.server.next_write(SPAN_BYTES)):
            self._receive(data)
            assert self.server.sent(len(data)) == b""

    def _receive(self, data: bytes) -> None:
        begin = 0
        while begin < len(data):
            end = message_end(data, begin)
            self.frames.append(json.loads(frame_payload(data[begin:end])))
            begin = end

    def say(self, **frame: Any) -> None:
        """Send a frame as the client."""
        self.server.receive(json.dumps(frame), self.driven.now)
        self.attend()

    def follow(self, *logs: str, **more: Any) -> None:
        """Subscribe to logs, from now on or from where `more` says."""
        self.say(type="sub", ref=1, logs=[{"log": log, **more} for log in logs])

    def leave(self) -> None:
        """Disconnect."""
        self._gateway.left(self)
        while (action := self.server.next_action()) is not None:
            self._gateway.do(self, action)
        self.driven.perform_actions()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the received frames of a type."""
        return [frame for frame in self.frames if frame["type"] == kind]

    def events(self, log: str) -> list[int]:
        """Return the sequences of a log's events, in order of arrival."""
        return [frame["seq"] for frame in self.of("ev") if frame["log"] == log]
