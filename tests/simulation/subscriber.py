"""A client that follows a channel: every event in order, once, resuming with `since` and `epoch` after a disconnection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openguild_proto.schemas.payloads import payload_sequence
from openguild_proto.ws.close_codes import CloseCode
from openguild_proto.ws.reasons import reconnect_secs
from tests.simulation.client import Client
from tests.simulation.clock import Activity
from tests.simulation.connection import Connection
from tests.simulation.ledger import Entry
from tests.simulation.messages import differing_view
from tests.simulation.sockets import StreamSocket
from tests.support.world import request

if TYPE_CHECKING:
    from tests.simulation.scenario import Run

RETRY_SECS = 1.0
REFUSED_SECS = (2.0, 6.0)  # before it retries after a final refusal


class Subscriber:
    """`received`: the payloads since it began, which must be the channel's log from its first event on."""

    def __init__(self, run: Run, client: Client, user_id: str, channel_id: str, *, slow: bool = False) -> None:
        self.client = client
        self.user_id = user_id
        self.channel_id = channel_id
        self.received: list[bytes] = []
        self.reconnects = 0
        self.is_stopped = False
        self.connection: Connection | None = None
        self._run = run
        self._epoch: int | None = None
        self._is_slow = slow
        self._may_have_waited = slow  # its events may have been sent long before
        self._has_forgotten = False

    def stop(self) -> None:
        self.is_stopped = True
        if self.connection is not None:
            self.connection.close()

    def read_on(self) -> None:
        """Read as fast as the others from now on."""
        self._is_slow = False
        if self.connection is not None:
            self.connection.is_slow = False

    def forget(self) -> None:
        """Discard everything, and read the channel from its first event on, at the same replica."""
        self._has_forgotten = True
        if self.connection is not None:
            self.connection.close()

    def follow(self) -> Activity[None]:
        run, cluster = self._run, self._run.cluster
        while not self.is_stopped:
            token = yield from self.client.token()
            if self._has_forgotten:
                self._has_forgotten = False
                self.received.clear()
                self._epoch = None
            path = f"/channels/{self.channel_id}/ws?since={len(self.received)}"
            path += f"&epoch={self._epoch}" if self._epoch is not None else ""
            connection = self.connection = Connection(cluster.clock, run.rng, self._take, slow=self._is_slow)
            connection.opened_now = self._opened
            self._may_have_waited = self._is_slow
            connection.pipe = cluster.opening(
                self.client.place, request("GET", path, None, token, upgrade=True), connection, connection.refused
            )
            yield connection.wait
            self.reconnects += 1
            if not self.is_stopped and not self._has_forgotten:
                yield from self._come_back(connection, token)

    def _opened(self) -> None:
        if self.connection is not None:
            self._epoch = self.connection.epoch

    def _come_back(self, connection: Connection, token: str) -> Activity[None]:
        run, refusal = self._run, connection.refusal
        sleep = run.cluster.clock.sleep
        if refusal is not None and refusal.status == 400:
            self._begin_anew(refusal.body)
        elif refusal is not None and refusal.status in (403, 404):
            yield from self._without_right(str(refusal.status))
        elif connection.code in (CloseCode.MEMBERSHIP_LOST, CloseCode.CHANNEL_DELETED):
            yield from self._without_right(str(connection.code))
        elif (refusal is not None and refusal.status == 401) or connection.code == CloseCode.TOKEN_ENDED:
            yield from self.client.renew(token)
        elif refusal is not None or connection.code is None:
            yield from self.client.try_elsewhere(refusal)
        elif connection.code == CloseCode.SERVICE_RESTART:
            self.client.place += 1
            yield sleep((reconnect_secs(connection.reason) or 0.0) + 0.2 * run.rng.random())
        elif connection.code in (CloseCode.POLICY_VIOLATION, CloseCode.INTERNAL_ERROR):
            yield sleep(RETRY_SECS * run.rng.random())
        else:
            run.violation(f"{self.client.name}: its stream ended with {connection.code} {connection.reason}")
            yield sleep(RETRY_SECS)

    def _begin_anew(self, why: bytes) -> None:
        """Start again: the log is another one, and earlier events of it no longer count."""
        if not self._run.cluster.database.restores:
            self._run.violation(f"{self.client.name}: its place {len(self.received)} is refused: {why.decode()}")
        self.received.clear()
        self._epoch = None

    def _without_right(self, code: str) -> Activity[None]:
        """Retry after the loss of a right, which may return."""
        run = self._run
        if run.rights.may_read(self.user_id, self.channel_id) and not run.may_have_changed(
            self.user_id, self.channel_id
        ):
            run.violation(f"{self.client.name}: {code} although it may read {self.channel_id}")
        yield run.cluster.clock.sleep(run.rng.uniform(*REFUSED_SECS))

    def _take(self, payload: bytes) -> None:
        run, connection = self._run, self.connection
        sequence = len(self.received) + 1
        entry = run.cluster.database.ledger.committed(self.channel_id, sequence, payload)
        if entry is None:
            came = payload_sequence(payload)
            what = "was not committed as it came" if came == sequence else f"came after {sequence - 1}"
            run.violation(f"{self.client.name}: {came} of {self.channel_id} {what}")
            return
        socket = connection.socket if connection is not None else None
        if socket is not None and self._goes_on_without_right(socket, entry.at):
            run.violation(f"{self.client.name}: got an event that was stored long after its right had ended")
        taken = entry.taken
        is_late = taken is not None and payload == taken.payload and run.is_long_ago(taken.at)
        if is_late and not self._may_have_waited:
            run.violation(f"{self.client.name}: got a text long after it was taken back")
        self.received.append(payload)
        run.note("got", self.client.name, sequence)

    def _goes_on_without_right(self, socket: StreamSocket, stored_at: float) -> bool:
        """Return whether an event stored then came too late. A right may have returned since the last check of rights."""
        since, rights = socket.without_right_since, self._run.rights
        return (
            since is not None and stored_at > rights.latest_end(socket, since) and not rights.may_go_on(socket.opened)
        )

    @property
    def has_all(self) -> bool:
        """Whether it has every event of the channel, or may not read it."""
        if not self._run.rights.may_read(self.user_id, self.channel_id):
            return self.connection is None or not self.connection.is_open
        return not self._has_forgotten and len(self.received) >= self._run.cluster.database.ledger.head(self.channel_id)

    def check(self) -> str | None:
        """Return the violation found at the end, if any."""
        if not self._run.rights.may_read(self.user_id, self.channel_id):
            return None
        wanted = self._run.cluster.database.ledger.log(self.channel_id)
        if len(self.received) == len(wanted) and all(map(Entry.is_sent_as, wanted, self.received)):
            return differing_view(self._run, self)
        return f"{self.client.name}: has {len(self.received)} events of {self.channel_id}, the log has {len(wanted)}"
