"""Posts that were stored before are answered again, but not without end."""

from __future__ import annotations

import pytest

from openguild_proto.effects import Effect
from openguild_proto.effects.channels import AppendEvent, FindPosted
from openguild_proto.limits import MAX_REPEATS_PER_MESSAGE
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.server.parts import make_service
from tests.support.server import SIGNING_KEY
from tests.support.world import World, decoded

MESSAGES, REPEATS = 3, 5


class Poster:
    """Alice in her channel; `asked` counts what the store was asked to look up or append."""

    def __init__(self, *, by_address: bool) -> None:
        self.world = World()
        self.token = self.world.user("alice")
        guild = decoded(self.world.ask("POST", "/guilds", {"name": "g"}, self.token))["guild_id"]
        made = self.world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, self.token)
        self.path = f"/channels/{decoded(made)['channel_id']}/messages"
        self.asked = 0
        service, messages, repeats = self.world.service, SlidingWindow(MESSAGES, 60), SlidingWindow(REPEATS, 60)
        if by_address:
            service.address_messages, service.address_repeats = messages, repeats
        else:
            service.user_messages, service.user_repeats = messages, repeats

    def post(self, nonce: str, content: str = "x") -> int:
        def before(place: int, effect: Effect[object]) -> None:
            self.asked += isinstance(effect, AppendEvent | FindPosted)

        answer = self.world.ask("POST", self.path, {"content": content, "nonce": nonce}, self.token, before=before)
        if answer.status == 429:
            assert 0 < int(dict(answer.headers)["retry-after"]) <= 61
        return answer.status


@pytest.fixture(params=[False, True], ids=["user", "address"])
def alice(request: pytest.FixtureRequest) -> Poster:
    return Poster(by_address=request.param)


def test_repeats_beyond_their_limit_count_as_messages(alice: Poster) -> None:
    answers = [alice.post("n") for _ in range(1 + REPEATS + MESSAGES + 20)]
    assert answers == [200] * (MESSAGES + REPEATS) + [429] * 21
    assert alice.asked == MESSAGES + REPEATS, "what is refused asks nothing of the store"
    alice.world.wall_ms += 61_000
    assert alice.post("n") == 200


def test_a_message_has_its_room_when_repeats_have_none(alice: Poster) -> None:
    assert [alice.post("n") for _ in range(1 + REPEATS)] == [200] * (1 + REPEATS)
    assert [alice.post(nonce) for nonce in "abc"] == [200, 200, 429]


def test_asking_at_the_message_limit_counts_whatever_is_found(alice: Poster) -> None:
    """A nonce of the past, one with other content, and one that nobody has used cost the store the same."""
    assert [alice.post(nonce) for nonce in "abc"] == [200] * MESSAGES
    assert [alice.post("a"), alice.post("a", "other"), alice.post("new"), alice.post("b"), alice.post("c")] == [
        200, 409, 429, 200, 200,
    ]  # fmt: skip
    asked = alice.asked
    assert [alice.post(nonce) for nonce in ("a", "new", "c")] == [429] * 3
    assert alice.asked == asked


def test_a_client_that_retries_each_message_never_meets_the_limit() -> None:
    """As configured by default: every message that may be posted is asked for again five times."""
    config = ServerConfig.model_validate({"session": {"signing_key": SIGNING_KEY}})
    service = make_service(config)
    for messages, repeats in (
        (service.user_messages, service.user_repeats),
        (service.address_messages, service.address_repeats),
    ):
        assert (repeats.limit, repeats.window_secs) == (messages.limit * MAX_REPEATS_PER_MESSAGE, messages.window_secs)
    alice = Poster(by_address=False)
    alice.world.service.user_messages, alice.world.service.user_repeats = service.user_messages, service.user_repeats
    answers = [alice.post(str(number)) for number in range(service.user_messages.limit) for _ in range(6)]
    assert set(answers) == {200}
