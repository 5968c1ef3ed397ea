"""The client: its session, and requests with retries."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
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
    api_error,
    is_temporary,
    next_step,
)
from openguild_proto.schemas.accounts import TokenPair
from openguild_runtime.client.api import Api
from openguild_runtime.client.connection_pool import ConnectionPool
from openguild_runtime.client.subscription import Subscription, decode_message
from openguild_runtime.client.transport import Connect, OutcomeUnknown, connect_tcp, decode_answer
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy


class Posted(msgspec.Struct, frozen=True, gc=False):
    """The server's acknowledgement of a post: the event is durable."""

    sequence: int
    event_id: str
    created_at: str


@dataclass(slots=True)
class Client(Api):
    """A client of one service.

    `urls`: addresses of the service. `retry_secs`: how long to retry a request before raising `OutcomeUnknown`.
    `device_id`: the device that `login` uses, random by default. An account has one session per device: a login ends the
    device's previous session. `on_session` is called with each new token pair, which replaces the previous pair.

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
    _pool: ConnectionPool = field(init=False)
    _refresh_lock: anyio.Lock = field(init=False, default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        self.device_id = self.device_id or f"client-{encode_unpadded(self.sources.random_bytes(9))}"
        urls = (self.urls,) if isinstance(self.urls, str) else self.urls
        self._pool = ConnectionPool(urls, self.connect, self.sources.monotonic)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close idle connections. Subscriptions are closed separately."""
        await self._pool.aclose()

    # --- accounts ------------------------------------------------------------------------------------

    async def register(self, username: str, password: str) -> str:
        """Create an account and return its user id. Raises ApiError, OutcomeUnknown."""
        body = {"username": username, "password": password}
        return str((await self.request("POST", "/users/register", body, authorized=False))["user_id"])

    async def login(self, username: str, password: str, device_id: str | None = None) -> None:
        """Log in as `device_id`, by default this client's. Ends the device's previous session.

        Raises ApiError, OutcomeUnknown.
        """
        body = {"identifier": username, "secret": password, "device": {"device_id": device_id or self.device_id}}
        answer = await self._send_with_retries("POST", "/sessions/login", body, authorized=False, repeatable=True)
        self._store_session(answer)

    async def logout(self) -> None:
        """End the session on every replica. Raises ApiError, OutcomeUnknown.

        Keeps the session unless the server has ended it or has refused it for good.
        """
        async with self._refresh_lock:  # a refresh would replace the token that is revoked
            if self.session is None:
                return
            body = {"refresh_token": self.session.refresh_token}
            try:
                await self.request("POST", "/sessions/revoke", body, authorized=False)
            except ApiError as refusal:
                if is_temporary(refusal.status):
                    raise
                self.session = None  # it had already ended
                raise
            self.session = None

    def _store_session(self, answer: ClientResponse) -> None:
        decode_answer(answer.body, TokenPair)
        try:
            session = Session.of(answer.body, self.sources.monotonic())
        except ValueError as failure:
            raise OutcomeUnknown(f"the tokens cannot be used: {failure}") from failure
        self.session = session
        self.on_session(session)

    # --- requests ------------------------------------------------------------------------------------

    async def request(self, method: str, path: str, body: Any = None, *, authorized: bool = True) -> Any:
        """Send one request and return its JSON response, None if it is empty. Retries GET. Raises ApiError, OutcomeUnknown."""
        answer = await self.send(method, path, body, authorized=authorized)
        return decode_answer(answer.body, object) if answer.body else None

    async def send(self, method: str, path: str, body: Any = None, *, authorized: bool = True) -> ClientResponse:
        """Send one request and return its response with the headers. Otherwise like `request`."""
        return await self._send_with_retries(method, path, body, authorized=authorized, repeatable=method == "GET")

    async def post(self, channel_id: str, text: str, *, nonce: str | None = None) -> Posted:
        """Store a message exactly once: every attempt carries the same nonce.

        Raises ApiError (every attempt was refused, nothing was stored) and OutcomeUnknown (an attempt got no response or a
        5xx: post again with its `nonce`).
        """
        nonce = nonce or encode_unpadded(self.sources.random_bytes(16))
        path, body = f"/channels/{channel_id}/messages", {"content": text, "nonce": nonce}
        unknown_outcomes: list[str] = []
        try:
            answer = await self._send_with_retries(
                "POST", path, body, authorized=True, repeatable=True, unknown_outcomes=unknown_outcomes
            )
            return decode_answer(answer.body, Posted)
        except (ApiError, OutcomeUnknown) as end:
            if isinstance(end, ApiError) and not unknown_outcomes:
                raise
            raise OutcomeUnknown(str(end), nonce) from end

    async def _send_with_retries(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        authorized: bool,
        repeatable: bool,
        unknown_outcomes: list[str] | None = None,
    ) -> ClientResponse:
        """Send until it succeeds, is refused, or `retry_secs` have passed.

        `unknown_outcomes` collects the reasons of attempts that the server may have carried out.
        """
        data = b"" if body is None else msgspec.json.encode(body)
        backoff = Backoff(self.jitter)
        deadline = self.sources.monotonic() + self.retry_secs
        refreshed = ended_idle = False
        while True:
            token = await self.fresh_token() if authorized else None
            fresh = ended_idle or not repeatable
            attempt = await self._pool.attempt(method, path, data, token, fresh=fresh)
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
            elif ended_idle:  # once: the next one is fresh
                self.on_retry(reason)
                continue
            delay = backoff.next_delay(advised)
            if self.sources.monotonic() + delay > deadline:
                raise api_error(response) if response else OutcomeUnknown(reason)
            self.on_retry(reason)
            await anyio.sleep(delay)

    # --- tokens --------------------------------------------------------------------------------------

    async def fresh_token(self, refused: str | None = None) -> str:
        """Return an access token that is valid for a while and is not `refused`.

        Raises ApiError, OutcomeUnknown, and RuntimeError before a login.
        """
        session = self._logged_in()
        if session.access_token == refused or session.is_stale(self.sources.monotonic()):
            await self.refresh(session.access_token)
        return self._logged_in().access_token

    def _logged_in(self) -> Session:
        if self.session is None:
            raise RuntimeError("log in first")
        return self.session

    async def refresh(self, refused: str | None) -> None:
        """Get a new token pair, once for concurrent callers. `refused`: the access token that the server rejected."""
        async with self._refresh_lock:
            session = self.session
            if session is None or session.access_token != refused:
                return
            body = {"refresh_token": session.refresh_token}  # repeating a refresh has a grace (PROTOCOL 4.6.4)
            answer = await self._send_with_retries("POST", "/sessions/refresh", body, authorized=False, repeatable=True)
            self._store_session(answer)

    # --- streams -------------------------------------------------------------------------------------

    def subscribe(self, channel_id: str, since: int | None = None, epoch: int | None = None) -> Subscription:
        """Return a subscription to the events after `since`, in order and without repeats, across reconnects.

        `since` is exclusive; None starts with the newest events. `epoch`: the `Subscription.state.epoch` stored with `since`.
        """
        return self._subscription(StreamClient(channel_id, since, self.jitter, epoch))

    async def notifications(self) -> AsyncIterator[dict[str, Any]]:
        """Iterate over notifications for everything that the user may read (PROTOCOL 8.10), without replay."""
        subscription = self._subscription(StreamClient(None, None, self.jitter))
        try:
            while True:
                event = await subscription.next_event()
                if isinstance(event, Notified):
                    yield decode_message(event.payload, dict[str, Any])
        finally:
            await subscription.aclose()

    def _subscription(self, stream: StreamClient) -> Subscription:
        return Subscription(stream, self._pool, self.sources.monotonic, self.fresh_token)
