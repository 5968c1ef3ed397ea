"""The client itself: tokens, and requests that are tried again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.client import (
    Backoff,
    ClientResponse,
    Notified,
    Session,
    Step,
    StreamClient,
    api_error,
    next_step,
)
from openguild_runtime.client.replicas import Replicas
from openguild_runtime.client.subscription import Subscription
from openguild_runtime.client.transport import Connect, GaveUp, connect_tcp
from openguild_runtime.sources import Sources


class Posted(msgspec.Struct, frozen=True, gc=False):
    """What the server acknowledged: the event is durable."""

    sequence: int
    event_id: str
    created_at: str


@dataclass(slots=True)
class Client:
    """`urls`: addresses of one service. `patience_secs`: how long a request is tried again before `GaveUp`.

    `connect`, `sources` and `jitter` (a number in [0, 1) at each call) are for tests and other transports.
    """

    urls: str | tuple[str, ...]
    patience_secs: float = 60.0
    connect: Connect = connect_tcp
    sources: Sources = field(default_factory=Sources)
    jitter: Callable[[], float] = random.random
    session: Session | None = None
    on_retry: Callable[[str], None] = lambda reason: None
    _replicas: Replicas = field(init=False)
    _refreshing: anyio.Lock = field(init=False, default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        self._replicas = Replicas((self.urls,) if isinstance(self.urls, str) else self.urls, self.connect)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close idle connections. Subscriptions close by themselves."""
        await self._replicas.aclose()

    # --- accounts ------------------------------------------------------------------------------------

    async def register(self, username: str, password: str) -> str:
        """The new account's user id. Raises ApiError, GaveUp."""
        body = {"username": username, "password": password}
        return str((await self.request("POST", "/users/register", body, authorized=False))["user_id"])

    async def login(self, username: str, password: str, device_id: str = "client") -> None:
        """Raises ApiError, GaveUp."""
        body = {"identifier": username, "secret": password, "device": {"device_id": device_id}}
        answer = await self._attempts("POST", "/sessions/login", body, authorized=False, repeatable=True)
        self.session = Session.of(answer.body, self.sources.monotonic())

    async def logout(self) -> None:
        """End the session on every replica. Raises ApiError, GaveUp."""
        session, self.session = self.session, None
        if session is not None:
            await self.request("POST", "/sessions/revoke", {"refresh_token": session.refresh_token}, authorized=False)

    # --- requests ------------------------------------------------------------------------------------

    async def request(self, method: str, path: str, body: Any = None, *, authorized: bool = True) -> Any:
        """One request to its JSON answer, None for an empty one. GET is repeated when it fails. Raises ApiError, GaveUp."""
        answer = await self._attempts(method, path, body, authorized=authorized, repeatable=method == "GET")
        return msgspec.json.decode(answer.body) if answer.body else None

    async def post(self, channel_id: str, text: str, *, nonce: str | None = None) -> Posted:
        """Store a message once, however often it has to be sent: every attempt carries the same nonce.

        Raises ApiError (nothing was stored), GaveUp (unknown: post again with the same `nonce`).
        """
        body = {"content": text, "nonce": nonce or encode_unpadded(self.sources.random_bytes(16))}
        path = f"/channels/{channel_id}/messages"
        answer = await self._attempts("POST", path, body, authorized=True, repeatable=True)
        return msgspec.json.decode(answer.body, type=Posted)

    async def _attempts(
        self, method: str, path: str, body: Any, *, authorized: bool, repeatable: bool
    ) -> ClientResponse:
        """Send until it is done, refused, or `patience_secs` have passed."""
        data = b"" if body is None else msgspec.json.encode(body)
        backoff = Backoff(self.jitter)
        deadline = self.sources.monotonic() + self.patience_secs
        refreshed = False
        while True:
            token = await self.fresh_token() if authorized else None
            response, reason = await self._replicas.exchange(method, path, data, token, fresh=not repeatable)
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
                raise GaveUp(reason)
            delay = backoff.next_delay(advised)
            if self.sources.monotonic() + delay > deadline:
                raise api_error(response) if response else GaveUp(reason)
            self.on_retry(reason)
            await anyio.sleep(delay)

    # --- tokens --------------------------------------------------------------------------------------

    async def fresh_token(self, refused: str | None = None) -> str:
        """An access token that is good for a while, and not the `refused` one.

        Raises ApiError, GaveUp, and RuntimeError while nobody is logged in.
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
        """Get a new pair, once for all who ask. `refused`: the access token that was not accepted."""
        async with self._refreshing:
            session = self.session
            if session is None or session.access_token != refused:
                return
            body = {"refresh_token": session.refresh_token}  # repeating a refresh has a grace (CONTRACT 5)
            answer = await self._attempts("POST", "/sessions/refresh", body, authorized=False, repeatable=True)
            self.session = Session.of(answer.body, self.sources.monotonic())

    # --- streams -------------------------------------------------------------------------------------

    def subscribe(self, channel_id: str, since: int | None = None) -> Subscription:
        """Events after `since` (exclusive; None: the newest ones and on), in order, once, across reconnects."""
        return self._subscription(StreamClient(channel_id, since, self.jitter))

    async def notifications(self) -> AsyncIterator[dict[str, Any]]:
        """What happens in all that the user may read, while connected (CONTRACT 9); nothing is replayed."""
        subscription = self._subscription(StreamClient(None, None, self.jitter))
        try:
            while True:
                event = await subscription.next_event()
                if isinstance(event, Notified):
                    yield msgspec.json.decode(event.payload)
        finally:
            await subscription.aclose()

    def _subscription(self, stream: StreamClient) -> Subscription:
        return Subscription(stream, self._replicas, self.sources.monotonic, self.fresh_token)
