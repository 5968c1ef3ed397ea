"""The links between servers: cut or slow; answers are lost, and requests are repeated or late."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from openguild_proto.effects.federation import Exchange, Exchanged, Fetch, Fetched, PeerUnavailable
from openguild_proto.federation.signatures import sign_request
from openguild_proto.http.message import Request, Response
from tests.simulation.federation.server import Done, Server

if TYPE_CHECKING:
    from tests.simulation.federation.scenario import Run

DELIVERIES = "/federation/v1/deliveries"
LATE_SECS = 280.0  # the latest arrival: a signature is valid for 300 seconds


class Network:
    """Shares of the requests: `lost` answers, `repeated`, and `late` ones, which arrive when nobody waits any more."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.clock = run.clock
        self.rng = run.rng
        self.lost = self.repeated = self.late = 0.0
        self._cut: dict[frozenset[str], float] = {}  # pair -> when the cut ends

    def cut(self, one: str, other: str, secs: float) -> None:
        """Cut the link between two servers."""
        self._cut[frozenset({one, other})] = self.clock.now + secs

    def heal(self) -> None:
        """Deliver everything from now on."""
        self.lost = self.repeated = self.late = 0.0
        self._cut.clear()

    def _is_cut(self, one: str, other: str) -> bool:
        return self._cut.get(frozenset({one, other}), -1.0) > self.clock.now

    def _way(self) -> float:
        return 0.001 + 0.03 * self.rng.random()

    def exchange(self, sender: Server, asked: Exchange, done: Done) -> None:
        """Sign a request, deliver it and return the answer."""
        headers, signature = sign_request(
            asked.method, asked.target, asked.authority, asked.body, signer=sender.service.signers[0],
            created=sender.wall_ms // 1_000, nonce=sender.rng.randbytes(16).hex(),
        )  # fmt: skip
        if asked.body:
            headers += (("content-type", "application/json"),)
        path, _, query = asked.target.partition("?")
        request = Request(
            asked.method, path, query, (("host", asked.authority), *headers), asked.body, client_address=sender.name
        )
        if asked.target == DELIVERIES:
            self.run.books.sent(sender, asked.server, asked.body)
        self._carry(sender, asked.server, request, asked.timeout_secs, signature, done)

    def fetch(self, sender: Server, asked: Fetch, done: Done) -> None:
        """Read a public document."""

        def answered(found: Any, error: Exception | None) -> None:
            done(Fetched(found.status, None, found.body) if error is None else None, error)

        request = Request("GET", asked.target, "", (), client_address=sender.name)
        self._carry(sender, asked.server, request, asked.timeout_secs, b"", answered)

    def _carry(
        self, sender: Server, server: str, request: Request, timeout_secs: float, signature: bytes, done: Done
    ) -> None:
        receiver = self.run.servers.get(server)
        if receiver is None or self._is_cut(sender.name, server) or not receiver.is_up:
            self.clock.later(self._way(), done, None, PeerUnavailable(server, "connect"))
            return
        self.run.report.requests += 1
        is_open = True

        def end(result: Any, error: Exception | None) -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                done(result, error)

        def reply(answer: Response) -> None:
            if self.rng.random() < self.lost or self._is_cut(sender.name, server):
                return  # the sender waits until its timeout
            self.clock.later(self._way(), end, Exchanged(answer.status, answer.headers, answer.body, signature), None)

        late = self.late and self.rng.random() < self.late
        way = self.rng.uniform(timeout_secs, LATE_SECS) if late else self._way()
        self.clock.later(way, self._arrive, sender.name, receiver, request, reply)
        if self.repeated and self.rng.random() < self.repeated:
            again = way + (self._way() if self.rng.random() < 0.5 else self.rng.uniform(0, LATE_SECS))
            self.clock.later(again, self._arrive, sender.name, receiver, request, lambda answer: None)
        self.clock.later(timeout_secs, end, None, PeerUnavailable(server, "timeout", sent=True))

    def _arrive(self, sender: str, receiver: Server, request: Request, reply: Callable[[Response], None]) -> None:
        if receiver.is_up and not self._is_cut(sender, receiver.name):
            receiver.serve(request, reply)
