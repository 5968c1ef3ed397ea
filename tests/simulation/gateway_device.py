"""A device on one gateway socket: it follows the logs of a guild, its user and channels, posts, and is up to date at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openguild_proto.client.log_views import GuildView, UserView
from openguild_proto.client.view import ChannelView
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_logs import ResumePosition
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Post, React
from tests.simulation.client import Client
from tests.simulation.clock import Activity
from tests.simulation.connection import Connection
from tests.simulation.devices import new_view, wrong_view
from tests.support.world import request

if TYPE_CHECKING:
    from tests.simulation.gateway_socket import GatewaySocket
    from tests.simulation.scenario import Run

REFUSED_SECS = (2.0, 6.0)  # before an unreadable log is requested again
TEMPORARY = {"database_unavailable", "overloaded", "draining"}


class GatewayDevice:
    """`posts`: how many it still makes. `views`: its state of each log, from the beginning."""

    def __init__(self, run: Run, client: Client, user_id: str, channels: tuple[str, ...], *, slow: bool) -> None:
        self.client = client
        self.user_id = user_id
        self.is_slow = slow
        self.is_stopped = False
        self.machine = GatewayClient(Encoding.JSON, jitter=run.rng.random, random_bytes=run.rng.randbytes)
        self.views: dict[str, GuildView | UserView | ChannelView] = {}
        self.gone: set[str] = set()
        self._asked: set[str] = set()  # logs without any events yet, until the server has answered
        self._run = run
        self._connection: Connection | None = None
        self._posts: dict[int, Post] = {}  # by ref, unacknowledged
        self._resting = 0  # number of posts that wait to be sent again
        self._armed: float | None = None
        self._last = 0.0  # arrival time of the last sent message
        self._is_renewing = False
        for log in (f"guild:{run.people.guild_id}", f"user:{user_id}", *(f"channel:{one}" for one in channels)):
            self._begin(log, 1)

    def follow(self) -> Activity[None]:
        """Connect, and stay connected until it is stopped."""
        token = yield from self.client.token()
        self.machine.start(token, self._run.clock.now)
        self._step()

    def stop(self) -> None:
        self.is_stopped = True
        self.machine.close()
        self._step()

    def read_on(self) -> None:
        """Read as fast as the others from now on."""
        self.is_slow = False
        if self._connection is not None:
            self._connection.is_slow = False

    # --- actions -------------------------------------------------------------------------------------

    def post(self, channel_id: str, text: str) -> None:
        """Post a message, which will be acknowledged."""
        self._send(Post(0, channel_id, content=text, key=f"{self.client.name}{self._run.rng.getrandbits(64)}"))

    def react(self, channel_id: str, event_id: str, emoji: str) -> None:
        """React to a message. The server may refuse: the message may be gone."""
        self.machine.send(React(0, channel_id, event_id=event_id, emoji=emoji))
        self._step()

    def _send(self, post: Post) -> None:
        self._posts[self.machine.send(post)] = post
        self._step()

    # --- the machine ---------------------------------------------------------------------------------

    def _begin(self, log: str, epoch: int) -> None:
        """Forget a log, and request all of it."""
        self.views[log] = new_view(log)
        self.gone.discard(log)
        self._asked.add(log)
        self.machine.follow(log, ResumePosition(epoch, 0))

    def _step(self) -> None:
        while (event := self.machine.next_event()) is not None:
            self._take(event)
        connection = self._connection
        if connection is not None and connection.is_open:
            for message in self.machine.messages_to_send():
                self._upload(connection, str(message))
        deadline = self.machine.next_deadline()
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._armed = deadline
            self._run.clock.at(max(deadline, self._run.clock.now), self._due, deadline)

    def _due(self, deadline: float) -> None:
        if self._armed == deadline:
            self._armed = None
            self.machine.handle_deadline(self._run.clock.now)
            self._step()

    def _take(self, event: told.ClientEvent) -> None:
        run = self._run
        match event:
            case told.Connect():
                self._connect()
            case told.Disconnect():
                self._drop()
            case told.TokenNeeded():
                run.clock.start(self._renew())
            case told.Interrupted():
                self.client.place += run.rng.random() < 0.5
                run.report.reconnects += 1
            case told.Followed(log=log, recovered=True):
                self._asked.discard(log)
            case told.Followed(log=log, epoch=epoch):
                if not run.cluster.database.restores:
                    run.violation(f"{self.client.name}: {log} does not go on from where it was")
                self._begin(log, epoch)
            case told.Delivered(log=log, sequence=sequence, wire=wire):
                self._deliver(log, sequence, wire)
            case told.LogGone(log=log, code=code) if not self.machine.follows(log):
                self._lost(log, code)
            case told.FollowRefused(log=log, code=code):
                self._lost(log, code)
            case told.Answered(ref=ref, result=result) if ref in self._posts:
                post = self._posts.pop(ref)
                run.acknowledged(self.client.name, post.channel_id, result, post.content)
            case told.Refused(ref=ref) if ref in self._posts:
                run.clock.start(self._refused(self._posts.pop(ref), event))
            case told.Ended(code=code, reason=reason) if not self.is_stopped:
                self._ended(code, reason)

    def _refused(self, post: Post, refused: told.Refused) -> Activity[None]:
        """Repeat a post after a temporary refusal, with its key: the server may have stored it."""
        run = self._run
        if refused.code in TEMPORARY:
            self._resting += 1
            yield run.clock.sleep(run.rng.uniform(0.2, 2.0))
            self._resting -= 1
            self._send(post)
        elif run.rights.may_read(self.user_id, post.channel_id) and not run.cluster.database.restores:
            run.violation(f"{self.client.name} cannot post by its socket: {refused}")

    def _ended(self, code: int | None, reason: str) -> None:
        """Handle the end, which only a revoked session causes: log in again, with a machine that continues from the same places."""
        run = self._run
        if code != 4005:
            run.violation(f"{self.client.name}: its gateway socket ended with {code} {reason}")
        posts, self._posts = list(self._posts.values()), {}
        places = self.machine.places
        self.machine = GatewayClient(Encoding.JSON, jitter=run.rng.random, random_bytes=run.rng.randbytes)
        for log in self.views:
            if log not in self.gone:
                self.machine.follow(log, places.get(log, ResumePosition(1, 0)))
        for post in posts:
            self._send(post)
        run.clock.start(self._enter())

    def _enter(self) -> Activity[None]:
        yield from self.client.renew(self.client.account.session.access_token)
        if not self.is_stopped:
            yield from self.follow()

    def _renew(self) -> Activity[None]:
        if self._is_renewing:
            return
        self._is_renewing = True
        yield from self.client.renew(self.client.account.session.access_token)
        self._is_renewing = False
        self.machine.set_token(self.client.account.session.access_token, self._run.clock.now)
        self._step()

    # --- the connection ------------------------------------------------------------------------------

    def _connect(self) -> None:
        run, cluster = self._run, self._run.cluster
        connection = self._connection = Connection(run.clock, run.rng, self._arrived, slow=self.is_slow)
        connection.opened_now = self._opened
        connection.pipe = cluster.opening(
            self.client.place, request("GET", "/gateway", None, None, upgrade=True), connection, connection.refused
        )
        run.clock.start(self._wait_for(connection))

    def _wait_for(self, connection: Connection) -> Activity[None]:
        yield connection.wait
        if self._connection is connection:
            self._connection = None
            self.machine.disconnected(connection.code, connection.reason, self._run.clock.now)
            self._step()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _opened(self) -> None:
        self.machine.connected(self._run.clock.now)
        self._step()

    def _arrived(self, payload: bytes) -> None:
        self.machine.received(payload.decode(), self._run.clock.now)
        self._step()

    def _upload(self, connection: Connection, message: str) -> None:
        """Send messages in order."""
        socket: GatewaySocket | None = connection.pipe.writer  # type: ignore[assignment]  # a pipe knows it as its writer
        if socket is not None:
            self._last = max(self._last, self._run.clock.now + connection.pipe.delay())
            self._run.clock.at(self._last, socket.received, message)

    # --- logs ----------------------------------------------------------------------------------------

    def _deliver(self, log: str, sequence: int, wire: bytes) -> None:
        try:
            self.views[log].apply(sequence, wire)
        except ValueError as hole:
            self._run.violation(f"{self.client.name}: its socket told of {log} with a hole: {hole}")

    def _lost(self, log: str, code: str) -> None:
        """Handle the loss of a log, and request it again: a right may return."""
        run = self._run
        self.gone.add(log)
        self._asked.discard(log)
        kind, _, log_id = log.partition(":")
        if (
            kind == "channel"
            and code in {"access_lost", "not_found"}
            and run.rights.may_read(self.user_id, log_id)
            and not run.may_have_changed(self.user_id, log_id)
        ):
            run.violation(f"{self.client.name}: {code} although it may read {log}")
        run.clock.later(run.rng.uniform(*REFUSED_SECS), self._ask_again, log)

    def _ask_again(self, log: str) -> None:
        if not self.is_stopped and not self.machine.follows(log):
            self._begin(log, 1)
            self._step()

    # --- checks --------------------------------------------------------------------------------------

    @property
    def has_all(self) -> bool:
        """Whether every log that the user may read was delivered to its end."""
        database = self._run.cluster.database
        for log, view in self.views.items():
            kind, _, log_id = log.partition(":")
            if log not in self.gone:
                state = database.tables._state
                head = database.ledger.head(log_id) if kind == "channel" else state.place_of(log_id).sequence
                if view.head < head:
                    return False
        return not self._posts and not self._resting

    def check(self) -> str | None:
        """Return the violation found at the end, if any."""
        wrong = wrong_view(self._run, self.user_id, self.views, self.gone | self._asked)
        if wrong is not None:
            return f"{self.client.name}: the view of {wrong} on its socket is not the server's"
        if any(self.machine.faults):
            return f"{self.client.name}: {self.machine.faults} on its socket"
        return None
