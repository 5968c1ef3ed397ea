"""The route that opens a gateway socket, and the operation that authenticates it (PROTOCOL 15.1, 15.2)."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.effects.base import Effect
from openguild_proto.effects.logs import FindAccountMemberships
from openguild_proto.errors import Refusal
from openguild_proto.http.message import OpenGateway, Request
from openguild_proto.operations.gateway import Authenticated, authenticate_gateway
from openguild_proto.policy.quotas import StreamLimiter
from tests.proto.operations.test_search import Scene
from tests.support.world import World


def upgrade(*headers: tuple[str, str]) -> Request:
    return Request(
        method="GET", path="/client/v1/gateway", query="", headers=headers, request_id="r",
        client_address="192.0.2.1", is_upgrade=True,
    )  # fmt: skip


def protocols(*offered: str) -> tuple[str, str]:
    return "sec-websocket-protocol", ", ".join(offered)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["openguild.v2"], "openguild.v2"),
        (["openguild.v2.msgpack"], "openguild.v2.msgpack"),
        (["openguild.v1", "openguild.v2.msgpack", "openguild.v2"], "openguild.v2.msgpack"),
        (["openguild.v1"], None),
        ([], None),
    ],
)
def test_the_subprotocol_says_how_frames_are_encoded(offered: list[str], chosen: str | None) -> None:
    opened = World().run(upgrade(protocols(*offered)))
    assert isinstance(opened, OpenGateway)
    assert (opened.encoding, opened.subprotocol) == (chosen or "openguild.v2", chosen)


def test_a_token_of_the_upgrade_is_passed_on_unchecked() -> None:
    offers = protocols("openguild.v2", "bearer.in-a-subprotocol")
    in_subprotocol = World().run(upgrade(offers))
    in_header = World().run(upgrade(offers, ("authorization", "Bearer in-the-header")))
    without = World().run(upgrade(protocols("openguild.v2")))
    tokens = [opened.token for opened in (in_subprotocol, in_header, without) if isinstance(opened, OpenGateway)]
    assert tokens == ["in-a-subprotocol", "in-the-header", None]


def test_sockets_are_counted_before_they_authenticate() -> None:
    world = World()
    world.service.sockets = limiter = StreamLimiter(10, 1, 2)
    answers = [world.run(upgrade(protocols("openguild.v2"))) for _ in range(3)]
    assert [isinstance(answer, OpenGateway) for answer in answers] == [True, True, False]
    assert limiter.claim("alice")
    assert not limiter.claim("alice")
    limiter.release("alice", answers[0].address)  # type: ignore[union-attr]  # it is an OpenGateway
    limiter.release(None, answers[1].address)  # type: ignore[union-attr]  # this too
    assert (limiter.total, limiter.claim("alice")) == (0, True)


def test_the_answer_names_guilds_and_the_heads_of_their_logs() -> None:
    scene = Scene()
    found = authenticated(scene, scene.bob)
    assert (found.ready.user.user_id, found.ready.user.username) == (scene.ids[scene.bob], "bob")
    assert [guild.guild_id for guild in found.ready.guilds] == [scene.guild]
    heads = {head.log: head.head for head in found.ready.heads}
    assert heads.keys() == {f"guild:{scene.guild}", f"user:{scene.ids[scene.bob]}"}
    assert min(heads.values()) > 0
    assert found.claims.session_id == found.ready.session.session_id


def test_a_renewal_reads_no_guilds() -> None:
    scene = Scene()
    asked: list[Effect[Any]] = []
    found = authenticated(scene, scene.bob, asked, renews=True)
    assert (found.ready.user.user_id, found.ready.guilds, found.ready.heads) == (scene.ids[scene.bob], [], [])
    assert found.claims.session_id == found.ready.session.session_id
    assert not [effect for effect in asked if isinstance(effect, FindAccountMemberships)]


@pytest.mark.parametrize("renews", [False, True])
@pytest.mark.parametrize("token", ["", "x", "a.b.c"])
def test_a_bad_token_is_refused(token: str, renews: bool) -> None:
    with pytest.raises(Refusal, match="unauthorized"):
        authenticated(Scene(), token, renews=renews)


def authenticated(
    scene: Scene, token: str, asked: list[Effect[Any]] | None = None, *, renews: bool = False
) -> Authenticated:
    world = scene.world
    operation = authenticate_gateway(world.context(), token, renews=renews)
    asked = [] if asked is None else asked
    try:
        effect = next(operation)
        while True:
            asked.append(effect)
            effect = operation.send(world.perform(effect))
    except StopIteration as end:
        result: Authenticated = end.value
        return result
