"""The client: its session, requests with retries, and the streams that use them."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.client import (
    ApiError,
    Backoff,
    ClientResponse,
    Notified,
    Session,
    Step,
    StreamClient,
    Unauthorized,
    api_error,
    is_temporary,
    next_step,
)
from openguild_proto.client.errors import encoded
from openguild_proto.gateway.client_commands import KEY_BYTES, keyed
from openguild_proto.gateway.commands import key_of, request_of
from openguild_proto.gateway.frames import AnyCommand, Read, Typing
from openguild_proto.schemas.accounts import Registered, TokenPair
from openguild_proto.sessions.passwords import normalise_username
from openguild_proto.sessions.tokens import unverified_user_id
from openguild_runtime.client import running
from openguild_runtime.client.connection_pool import ConnectionPool
from openguild_runtime.client.gateway import Gateway
from openguild_runtime.client.handlers import E, Handler, Handlers
from openguild_runtime.client.messages import Messages
from openguild_runtime.client.notifications import Notification, notification_of
from openguild_runtime.client.read_marker import ReadMarker
from openguild_runtime.client.session_file import SessionFile
from openguild_runtime.client.subscription import Subscription
from openguild_runtime.client.transport import Connect, NotLoggedIn, OutcomeUnknown, connect_tcp, decode_answer
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy


@dataclass(slots=True, eq=False)
class Client(Messages):
    """A client of one service.

    `urls` are addresses of the service, `retry_secs` is how long to retry a request before raising `OutcomeUnknown`.
    `device_id` is the device that `login` uses, random by default. An account has one session per device, so a login ends the
    device's previous session. `on_session` is called with each new token pair, which replaces the previous pair.
    `session_file` keeps the session and its positions between runs of the program; protect it like a password.

    `connect`, `sources` and `jitter` (returns a number in [0, 1)) are for tests and other transports.
    """

    urls: str | tuple[str, ...]
    retry_secs: float = 60.0
    connect: Connect = connect_tcp
    sources: ClocksAndEntropy = field(default_factory=ClocksAndEntropy)
    jitter: Callable[[], float] = random.random
    session: Session | None = None
    device_id: str = ""
    on_session: Callable[[Session], None] = lambda session: None
    on_retry: Callable[[str], None] = lambda reason: None
    session_file: str | os.PathLike[str] | None = None
    _file: SessionFile = field(init=False)
    _handlers: Handlers = field(init=False, default_factory=Handlers)
    _gateway: Gateway | None = field(init=False, default=None)
    _pool: ConnectionPool = field(init=False)
    _reads: ReadMarker = field(init=False)
    _reporter: running.Reporter | None = field(init=False, default=None)  # within `run`
    _refresh_lock: anyio.Lock = field(init=False, default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        self.device_id = self.device_id or f"client-{encode_unpadded(self.sources.random_bytes(9))}"
        urls = (self.urls,) if isinstance(self.urls, str) else self.urls
        self._pool = ConnectionPool(urls, self.connect, self.sources.monotonic)
        self._file = SessionFile(self.session_file)
        self._reads = ReadMarker(lambda: self._open_gateway, self.send, self.sources.monotonic, self.jitter)
        self.session = self.session or self._file.load()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client: `listen` and `run` end, and later calls raise ClientClosed. Subscriptions are closed separately."""
        if self._gateway is not None:
            self._gateway.close()
        await self._pool.aclose()

    # --- accounts ------------------------------------------------------------------------------------

    async def register(self, username: str, password: str) -> str:
        """Create an account and return its user ID. Raises ApiError, OutcomeUnknown."""
        body = {"username": username, "password": password}
        answer = await self.send("POST", "/users/register", body, authorized=False)
        return decode_answer(answer.body, Registered).user_id

    async def login(self, username: str, password: str, device_id: str | None = None) -> None:
        """Log in as `device_id`, by default this client's. Ends the device's previous session.

        Raises ApiError, OutcomeUnknown, and OSError if the session file cannot be written; the client is logged in then.
        """
        body = {"identifier": username, "secret": password, "device": {"device_id": device_id or self.device_id}}
        answer = await self.send("POST", "/sessions/login", body, authorized=False, repeatable=True)
        self._store_session(answer, self._file.save)

    async def logout(self) -> None:
        """End the session on every replica. Raises ApiError, OutcomeUnknown.

        The session is kept if the server neither ended it nor permanently refused the request.
        """
        async with self._refresh_lock:  # a concurrent refresh would replace the token to revoke
            if self.session is None:
                return
            body = {"refresh_token": self.session.refresh_token}
            try:
                await self.request("POST", "/sessions/revoke", body, authorized=False)
            except ApiError as refusal:
                if is_temporary(refusal.status):
                    raise
                self._forget_session()  # it had already ended
                raise
            self._forget_session()

    @property
    def user_id(self) -> str | None:
        """The ID of the user who is logged in, or None."""
        return unverified_user_id(self.session.access_token) if self.session is not None else None

    async def enter(self, username: str, password: str) -> None:
        """Use the kept session if it is valid and this user's, else log in. Raises as `login`."""
        if self.session is not None:
            try:
                me = await self.request("GET", "/users/me")
            except Unauthorized:
                self.on_retry("the stored session has ended")
            else:
                if normalise_username(me["username"])[1] == normalise_username(username)[1]:
                    self._file.save(self.session)
                    return
                self.on_retry("the stored session belongs to another user")
        await self.login(username, password)

    def _forget_session(self) -> None:
        self.session = None
        self._reads.forget()
        self._file.try_save(None)

    def _store_session(self, answer: ClientResponse, save: Callable[[Session], None]) -> None:
        decode_answer(answer.body, TokenPair)
        former = self.session
        try:
            session = Session.of(answer.body, self.sources.monotonic())
        except ValueError as failure:
            raise OutcomeUnknown(f"the tokens cannot be used: {failure}") from failure
        if former is not None and unverified_user_id(former.access_token) in {
            None,
            unverified_user_id(session.access_token),
        }:
            session.positions = former.positions
        else:
            self._reads.forget()
        self.session = session
        save(session)
        self.on_session(session)

    # --- requests ------------------------------------------------------------------------------------

    async def request(self, method: str, path: str, body: Any = None, *, authorized: bool = True) -> Any:
        """Send one request and return its decoded JSON response, or None if it is empty. Raises ApiError, OutcomeUnknown.

        GET requests are retried. `path` is as in docs/api.md, such as `/guilds`, percent-encoded. `body` has JSON types or Structs.
        """
        answer = await self.send(method, path, body, authorized=authorized)
        return decode_answer(answer.body, object) if answer.body else None

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        authorized: bool = True,
        repeatable: bool | None = None,
        key: str | None = None,
    ) -> ClientResponse:
        """Send one request and return its response. A `repeatable` request may be sent twice; the default is GET requests only.

        `key` is the idempotency key of all attempts, by which a route that accepts one (docs/api.md) is performed exactly once.
        """
        data = b"" if body is None else encoded(body)
        if key is not None:
            return await self._send_once(method, path, data, key)
        repeatable = method == "GET" if repeatable is None else repeatable
        return await self._send_with_retries(method, path, data, authorized=authorized, repeatable=repeatable)

    def new_key(self) -> str:
        """Return a new idempotency key, for one request."""
        return self.sources.random_bytes(KEY_BYTES).hex()

    async def execute(self, command: AnyCommand) -> Any:
        """Perform a command exactly once and return its result.

        It is sent over the gateway while that is open and the program keeps up, else over HTTP. Raises ApiError (every attempt
        was refused, nothing was done) and OutcomeUnknown (an attempt got no response or a 5xx: repeat it with its `nonce`).
        """
        if isinstance(command, Read):
            return await self._reads.mark(command.channel_id, command.sequence, self.retry_secs)
        self._pool.require_open()
        encoded(command)  # refuses invalid text
        command = keyed(command, self.sources.random_bytes)
        gateway = self._open_gateway
        if gateway is not None and not gateway.is_behind:
            return await gateway.execute(command)
        request = request_of(command, token="", request_id="", client_address="")
        path = request.path + (f"?{request.query}" if request.query else "")
        if isinstance(command, Typing):  # a retry would be too late
            await self.send(request.method, path, msgspec.Raw(request.body), repeatable=False)
            return None
        answer = await self._send_once(request.method, path, request.body, key_of(command))
        return decode_answer(answer.body, object) if answer.body else None

    @property
    def _open_gateway(self) -> Gateway | None:
        return self._gateway if self._gateway is not None and not self._gateway.is_over else None

    def note_read(self, channel_id: str, sequence: int | None = None) -> None:
        """Move the read position soon, over the gateway once it is open."""
        self._reads.note(channel_id, sequence)

    async def _send_once(self, method: str, path: str, data: bytes, key: str | None) -> ClientResponse:
        """Send with retries. Raises ApiError if every attempt was refused, else OutcomeUnknown with the key."""
        unknown_outcomes: list[str] = []
        try:
            return await self._send_with_retries(
                method, path, data, authorized=True, repeatable=True, key=key, unknown_outcomes=unknown_outcomes
            )
        except (ApiError, OutcomeUnknown) as end:
            if isinstance(end, ApiError) and not unknown_outcomes:
                raise
            raise OutcomeUnknown(str(end), key) from end

    async def _send_with_retries(
        self,
        method: str,
        path: str,
        data: bytes,
        *,
        authorized: bool,
        repeatable: bool,
        key: str | None = None,
        unknown_outcomes: list[str] | None = None,
    ) -> ClientResponse:
        """Send until the request succeeds, is refused, or `retry_secs` have passed.

        `key` is the idempotency key of all attempts. `unknown_outcomes` collects the reasons of attempts that the server may have
        performed.
        """
        backoff = Backoff(self.jitter)
        deadline = self.sources.monotonic() + self.retry_secs
        refreshed = ended_idle = False
        while True:
            token = await self.fresh_token() if authorized else None
            fresh = ended_idle or not repeatable
            attempt = await self._pool.attempt(method, path, data, token, key, fresh=fresh)
            response, reason, ended_idle = attempt.response, attempt.reason, attempt.ended_idle
            if unknown_outcomes is not None and (response is None or response.status >= 500):
                unknown_outcomes.append(reason)
            step, advised = next_step(response, repeatable=repeatable) if response else (Step.RETRY, None)
            if response is not None:
                if step is Step.DONE:
                    return response
                if step is Step.REFRESH and authorized and not refreshed:
                    refreshed = True
                    await self.refresh(token)
                    continue
                if step is not Step.RETRY:
                    raise api_error(response)
                reason = f"HTTP {response.status}"
            elif not repeatable:
                raise OutcomeUnknown(reason)
            elif ended_idle:  # at most once, because the next connection is new
                self.on_retry(reason)
                continue
            delay = backoff.next_delay(advised)
            if self.sources.monotonic() + delay > deadline:
                raise api_error(response) if response else OutcomeUnknown(reason)
            self.on_retry(reason)
            if self._reporter is not None:
                self._reporter.warn(reason)
            await anyio.sleep(delay)

    # --- tokens --------------------------------------------------------------------------------------

    async def fresh_token(self, refused: str | None = None) -> str:
        """Return a fresh access token other than `refused`. Raises ApiError, also without a session, and OutcomeUnknown."""
        session = self._logged_in()
        if session.access_token == refused or session.is_stale(self.sources.monotonic()):
            await self.refresh(session.access_token)
        return self._logged_in().access_token

    def _logged_in(self) -> Session:
        if self.session is None:
            raise NotLoggedIn
        return self.session

    async def refresh(self, refused: str | None) -> None:
        """Get a new token pair, once for concurrent callers. `refused` is the access token that the server rejected."""
        async with self._refresh_lock:
            session = self.session
            if session is None or session.access_token != refused:
                return
            body = {"refresh_token": session.refresh_token}  # a refresh may be repeated for a while (PROTOCOL 4.6.4)
            answer = await self.send("POST", "/sessions/refresh", body, authorized=False, repeatable=True)
            self._store_session(answer, self._file.try_save)

    # --- events --------------------------------------------------------------------------------------

    def on(self, kind: type[E]) -> Callable[[Handler[E]], Handler[E]]:
        """Register a handler for a kind of event: `@client.on(MessagePosted)`. `listen` and `run` call it."""
        return self._handlers.on(kind)

    def run(self, username: str, password: str, *, invites: Iterable[str] = ()) -> None:
        """Log in, accept `invites` (codes or links), and call the handlers for events, until Ctrl-C or SIGTERM.

        For programs without their own event loop. Failures end the program with one line (SystemExit).
        """
        urls = (self.urls,) if isinstance(self.urls, str) else self.urls
        self._reporter = running.Reporter(urls, self.sources.wall, self.retry_secs)
        running.run(self, self._handlers, self._reporter, username, password, invites)

    async def listen(self) -> None:
        """Call the handlers for events, one event after the other, until cancelled.

        An event is handled when its handlers have returned; its position is in the session file within a second.
        Raises ApiError when the session has ended, and StreamEnded when the server refuses this client.
        """
        async with self.gateway() as events:
            await running.dispatch(
                events, self._handlers, self.sources.monotonic, lambda: self._file.try_save(self.session)
            )

    @asynccontextmanager
    async def gateway(self, *, everything: bool = True) -> AsyncIterator[Gateway]:
        """Open the gateway, an async iterator of events. While it is open, it also carries this client's commands.

        Events start after the session's `positions`, or from now on. If not `everything`, only logs passed to `Gateway.follow`
        are followed. Raises RuntimeError if the gateway is open already.
        """
        if self._gateway is not None:
            raise RuntimeError("the gateway of this client is open")
        self._pool.require_open()
        session = self._logged_in()
        self._gateway = gateway = Gateway(
            self,
            self._pool,
            self.sources,
            self.jitter,
            self.fresh_token,
            session.positions,
            retry_secs=self.retry_secs,
            everything=everything,
        )
        try:
            async with gateway:
                gateway.start(self._reads.send_all)
                yield gateway
        finally:
            self._gateway = None
            self._file.try_save(self.session)

    def subscribe(self, channel_id: str, since: int | None = None, epoch: int | None = None) -> Subscription:
        """Return a subscription to one channel's events after `since`, in order and without repeats, across reconnects.

        `since` is exclusive; None starts with the newest events. `epoch` is the `Subscription.state.epoch` stored with `since`.
        """
        return self._subscription(StreamClient(channel_id, since, self.jitter, epoch))

    async def notifications(self) -> AsyncIterator[Notification]:
        """Iterate over notifications from all channels and guilds that the user may read (PROTOCOL 8.10), without replay."""
        subscription = self._subscription(StreamClient(None, None, self.jitter))
        try:
            while True:
                event = await subscription.next_event()
                if isinstance(event, Notified):
                    yield notification_of(event.payload)
        finally:
            await subscription.aclose()

    def _subscription(self, stream: StreamClient) -> Subscription:
        return Subscription(stream, self._pool, self.sources.monotonic, self.fresh_token)
