"""A client: an account that is logged in, whose requests are retried until they are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openguild_proto.client import Session
from openguild_proto.http.message import Response
from openguild_proto.sessions.refresh import hash_refresh_token
from tests.simulation.clock import Activity
from tests.support.world import PASSWORD, request

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

DEVICE = "d"
RETRY_SECS = 0.4
AWAY_SECS = 2.0  # the wait after a 503, as its Retry-After says


class Account:
    """A user name and its session, which a new login can replace. `device`: the device of that session."""

    def __init__(self, name: str, session: Session, device: str = DEVICE) -> None:
        self.name = name
        self.session = session
        self.device = device
        self.is_renewing = False


class Client:
    """`place`: the replica that it asks first. Several clients may share an account and its session."""

    def __init__(self, cluster: Cluster, account: Account, place: int) -> None:
        self.name = account.name
        self.account = account
        self.place = place
        self._cluster = cluster

    def ask(self, method: str, path: str, body: Any = None) -> Activity[Response]:
        """Send a request, and changes, too, again until the server can answer it; return the answer."""
        while True:
            token = yield from self.token()
            answer = yield self._cluster.sending(self.place, request(method, path, body, token))
            if answer is not None and answer.status == 401:
                yield from self.renew(token)
            elif answer is not None and answer.status != 429 and answer.status < 500:
                return answer
            else:
                yield from self.try_elsewhere(answer)

    def try_elsewhere(self, answer: Response | None) -> Activity[None]:
        """Wait, and switch to another replica if this one is away."""
        random = self._cluster.rng.random
        if answer is None or random() < 0.5:
            self.place += 1
        if answer is not None and answer.status == 500:
            self._cluster.violation(f"{self.name} got {answer.status}: {answer.body.decode()}")
        yield self._cluster.clock.sleep(
            RETRY_SECS * random() if answer is None else AWAY_SECS * (0.25 + 0.75 * random())
        )

    # --- the session ---------------------------------------------------------------------------------

    def token(self) -> Activity[str]:
        """Return an access token that has not expired as far as the client knows."""
        if self.account.session.is_stale(self._cluster.clock.now):
            yield from self.renew(self.account.session.access_token)
        return self.account.session.access_token

    def renew(self, refused: str) -> Activity[None]:
        """Replace a refused token; log in again if the session has ended."""
        while self.account.is_renewing:
            yield self._cluster.clock.sleep(0.05)
        if self.account.session.access_token != refused:
            return
        self.account.is_renewing = True
        answer = yield from self._ask_for_tokens(
            "/sessions/refresh", {"refresh_token": self.account.session.refresh_token}
        )
        if answer.status == 401:
            self._check_end()
            body = {"identifier": self.name, "secret": PASSWORD, "device": {"device_id": self.account.device}}
            answer = yield from self._ask_for_tokens("/sessions/login", body)
        self.account.is_renewing = False
        if answer.status == 200:
            self.account.session = Session.of(answer.body, self._cluster.clock.now)
        else:
            self._cluster.violation(f"{self.name} cannot log in: {answer.status} {answer.body.decode()}")
            yield self._cluster.clock.sleep(AWAY_SECS)

    def _ask_for_tokens(self, path: str, body: Any) -> Activity[Response]:
        while True:
            answer = yield self._cluster.sending(self.place, request("POST", path, body))
            if answer is not None and answer.status != 429 and answer.status < 500:
                return answer
            yield from self.try_elsewhere(answer)

    def _check_end(self) -> None:
        """Check that the session had a reason to end: it was revoked, or the client does not know its newest token.

        The answer to a refresh may be lost, and a refresh token is accepted once more, within ten seconds. A restored database may
        have lost that token and the revocation.
        """
        if self._cluster.database.restores:
            return
        state = self._cluster.database.tables._state
        presented = hash_refresh_token(self.account.session.refresh_token) or b""
        known = state.refresh_tokens.get(presented)
        if known is None:
            self._cluster.violation(f"{self.name}: its refresh token is not known")
        elif not state.families[known[0]].revoked:
            self._cluster.violation(f"{self.name}: its session was refused without a reason")
