"""A client with a notification stream: what one connection reports of a channel follows its log; the next one starts again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from openguild_proto.ws.close_codes import CloseCode
from openguild_proto.ws.reasons import reconnect_secs
from tests.simulation.client import Client
from tests.simulation.clock import Activity
from tests.simulation.connection import Connection
from tests.support.world import request

if TYPE_CHECKING:
    from tests.simulation.scenario import Run

RETRY_SECS = 1.0


class _Told(msgspec.Struct):
    kind: str
    channel_id: str = ""
    sequence: int = 0


class Watcher:
    """`heads`: of the logs that it could read when its connection was opened; all later events must be reported."""

    def __init__(self, run: Run, client: Client, user_id: str, *, slow: bool = False) -> None:
        self.client = client
        self.user_id = user_id
        self.is_stopped = False
        self.count = 0
        self.connection: Connection | None = None
        self._run = run
        self._is_slow = slow
        self._heads: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._is_settled = False
        self._restores = 0  # the database's restores when it was opened

    def stop(self) -> None:
        self.is_stopped = True
        if self.connection is not None:
            self.connection.close()

    def follow(self) -> Activity[None]:
        run, cluster = self._run, self._run.cluster
        while not self.is_stopped:
            token = yield from self.client.token()
            connection = self.connection = Connection(cluster.clock, run.rng, self._take, slow=self._is_slow)
            connection.opened_now = self._opened
            asked = request("GET", "/notifications/ws", None, token, upgrade=True)
            connection.pipe = cluster.opening(self.client.place, asked, connection, connection.refused)
            yield connection.wait
            if not self.is_stopped:
                yield from self._come_back(connection, token)

    def _come_back(self, connection: Connection, token: str) -> Activity[None]:
        run, refusal = self._run, connection.refusal
        if (refusal is not None and refusal.status == 401) or connection.code == CloseCode.TOKEN_ENDED:
            yield from self.client.renew(token)
        elif refusal is not None or connection.code is None:
            yield from self.client.try_elsewhere(refusal)
        else:
            if connection.code not in (CloseCode.SERVICE_RESTART, CloseCode.POLICY_VIOLATION):
                run.violation(f"{self.client.name}: its notifications ended with {connection.code}")
            self.client.place += connection.code == CloseCode.SERVICE_RESTART
            yield run.cluster.clock.sleep((reconnect_secs(connection.reason) or 0.0) + RETRY_SECS * run.rng.random())

    def _opened(self) -> None:
        """Record the heads: the replica joins the stream before it reports it open, so later events must be reported."""
        cluster = self._run.cluster
        self._told = {}
        self._restores = cluster.database.restores
        self._heads = {}
        if self.user_id not in self._run.returned or self._is_settled:
            self._owe()

    def settled(self) -> None:
        """Expect everything from now on, even if rights have returned or the log is another one."""
        self._is_settled = True
        if self.user_id in self._run.returned or self._restores != self._run.cluster.database.restores:
            self._told = {}
            self._restores = self._run.cluster.database.restores
            self._owe()

    def _owe(self) -> None:
        ledger = self._run.cluster.database.ledger
        for channel_id in self._run.channels:
            if self._run.rights.may_read(self.user_id, channel_id):
                self._heads[channel_id] = ledger.head(channel_id)

    def _take(self, payload: bytes) -> None:
        run = self._run
        told = msgspec.json.decode(payload, type=_Told)
        if told.kind not in _PREFIXES:
            return
        self.count += 1
        run.note("told", self.client.name, told.sequence)
        ledger = run.cluster.database.ledger
        entry = ledger.committed(told.channel_id, told.sequence, b"{" + payload[len(_PREFIXES[told.kind]) :])
        if entry is None:
            run.violation(f"{self.client.name}: was told of {told.sequence} in {told.channel_id}, which is not stored")
            return
        last = self._told.get(told.channel_id, told.sequence - 1)
        self._told[told.channel_id] = told.sequence
        pair = self.user_id, told.channel_id
        if told.sequence != last + 1 and not run.may_have_changed(*pair) and not run.cluster.database.restores:
            run.violation(f"{self.client.name}: was told of {told.sequence} after {last} in {told.channel_id}")
        socket = self.connection.socket if self.connection is not None else None
        has_right = run.rights.may_read(*pair)  # it may have returned since the last check of rights
        if (
            not has_right
            and pair in run.rights.ended
            and entry.at > run.rights.latest_end(socket, run.rights.ended[pair])
        ):
            run.violation(f"{self.client.name}: was told of {told.channel_id} long after its right had ended")

    @property
    def has_all(self) -> bool:
        """Whether it is open, and has reported everything stored since it was opened."""
        if self.connection is None or not self.connection.is_open:
            return False
        if self._restores != self._run.cluster.database.restores:
            return True  # its places belong to another log
        ledger = self._run.cluster.database.ledger
        return all(
            self._told.get(channel_id, head) >= ledger.head(channel_id)
            for channel_id, head in self._heads.items()
            if self._run.rights.may_read(self.user_id, channel_id)
        )

    def check(self) -> str | None:
        """Return the violation found at the end, if any."""
        return None if self.has_all else f"{self.client.name}: was not told of everything"


_PREFIXES = {kind: b'{"kind":"%b",' % kind.encode() for kind in ("channel_message", "channel_event")}
