"""The routes of presence (PROTOCOL 7.13)."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.hints import PresenceChoice, PresenceStatus
from openguild_proto.operations.context import Settings
from openguild_proto.settings.sections import PresenceSettings
from tests.proto.operations.test_search import Scene
from tests.support.world import World, decoded


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("status", ["online", "idle", "offline"])
def test_a_choice_is_that_of_the_session(scene: Scene, status: str) -> None:
    assert scene.world.ask("PUT", "/users/@me/presence", {"status": status}, scene.alice).status == 204
    (choice,) = scene.world.announced
    assert isinstance(choice, PresenceChoice)
    assert (choice.user_id, choice.status) == (scene.ids[scene.alice], PresenceStatus(status))
    assert choice.session_id not in ("", choice.user_id)


@pytest.mark.parametrize("body", [{}, {"status": "away"}, {"status": None}, {"status": 1}])
def test_another_status_is_refused(scene: Scene, body: Any) -> None:
    assert scene.world.ask("PUT", "/users/@me/presence", body, scene.alice).status == 400
    assert scene.world.announced == []


def test_members_who_are_not_offline_are_listed(scene: Scene) -> None:
    bob, eve = scene.ids[scene.bob], scene.ids[scene.eve]
    scene.world.present = {bob: PresenceStatus.IDLE, eve: PresenceStatus.ONLINE}
    answer = scene.world.ask("GET", f"/guilds/{scene.guild}/presence", token=scene.alice)
    assert decoded(answer) == {"shown": True, "members": [{"user_id": bob, "status": "idle"}]}, "eve is no member"
    assert scene.world.ask("GET", f"/guilds/{scene.guild}/presence", token=scene.eve).status == 404


@pytest.mark.parametrize(("most", "shown"), [(1, False), (2, True)])
def test_a_large_guild_shows_nobody(most: int, shown: bool) -> None:
    scene = Scene(World(Settings(presence=PresenceSettings(max_guild_members=most))))
    scene.world.present = {scene.ids[scene.bob]: PresenceStatus.ONLINE}
    found = decoded(scene.world.ask("GET", f"/guilds/{scene.guild}/presence", token=scene.alice))
    assert (found["shown"], len(found["members"])) == (shown, int(shown))


def test_switched_off_both_routes_say_so() -> None:
    scene = Scene(World(Settings(presence=PresenceSettings(enabled=False))))
    answers = [
        scene.world.ask("GET", f"/guilds/{scene.guild}/presence", token=scene.alice),
        scene.world.ask("PUT", "/users/@me/presence", {"status": "idle"}, scene.alice),
    ]
    assert [(answer.status, decoded(answer)["error"]) for answer in answers] == [(403, "presence_off")] * 2
