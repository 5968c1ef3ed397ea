"""Every operation, stopped at each of its effects in turn: a typed 503, nothing half done, a retry that works.

Two failures are tried at each effect: it was refused before anything happened, and it happened but its answer was
lost (docs/building-blocks.md, "Operations and effects").
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from openguild_proto.effects import Effect, Overloaded, StorageEffect, StorageUnavailable
from openguild_proto.http.message import OpenStream, Request, Response
from tests.support.world import PASSWORD, World, decoded, request


@dataclass
class Scene:
    """Alice owns a guild with a channel and two messages; Bob is a member; Eve is a stranger."""

    world: World = field(default_factory=World)
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        world, names = self.world, self.names
        for name in ("alice", "bob", "eve"):
            names[name] = world.user(name)
            names[f"{name}_id"] = decoded(world.ask("GET", "/users/me", token=names[name]))["user_id"]
        alice = names["alice"]
        names["guild"] = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
        names["channel"] = decoded(world.ask("POST", f"/guilds/{names['guild']}/channels", {"name": "c"}, alice))[
            "channel_id"
        ]
        names["code"] = decoded(world.ask("POST", f"/guilds/{names['guild']}/invites", {}, alice))["code"]
        world.ask("POST", f"/invites/{names['code']}/accept", token=names["bob"])
        for text in ("one", "two"):
            world.ask("POST", f"/channels/{names['channel']}/messages", {"content": text}, alice)
        login = {"identifier": "bob", "secret": PASSWORD, "device": {"device_id": "second"}}
        names["refresh"] = decoded(world.ask("POST", "/sessions/login", login))["refresh_token"]

    def request(self, act: Act) -> Request:
        body = act.body
        if isinstance(body, dict):
            body = {key: value.format(**self.names) if isinstance(value, str) else value for key, value in body.items()}
        token = self.names[act.who] if act.who is not None else None
        return request(act.method, act.path.format(**self.names), body, token, upgrade=act.upgrade)


@dataclass
class Act:
    """One request; `again`: the status of the same request once more, after its answer was lost."""

    method: str
    path: str
    who: str | None = "alice"
    body: Any = None
    status: int = 200
    again: int | None = None
    upgrade: bool = False


ACTS = [
    Act("POST", "/users/register", None, {"username": "carol", "password": PASSWORD}, 201, again=409),
    Act("GET", "/users/me"),
    Act("POST", "/sessions/login", None, {"identifier": "alice", "secret": PASSWORD, "device": {"device_id": "x"}}),
    Act("POST", "/sessions/refresh", None, {"refresh_token": "{refresh}"}),
    Act("POST", "/sessions/revoke", None, {"refresh_token": "{refresh}"}, 204),
    Act("GET", "/sessions/devices", "bob"),
    Act("DELETE", "/sessions/devices/second", "bob", status=204, again=404),
    Act("POST", "/users/@me/password", "bob", {"current_password": PASSWORD, "new_password": "new horse"}, 204, again=403),
    Act("POST", "/users/@me/delete", "eve", {"current_password": PASSWORD}, 204, again=401),
    Act("GET", "/guilds"),
    Act("GET", "/search/messages?q=one", "bob"),
    Act("POST", "/guilds", body={"name": "new"}),
    Act("GET", "/guilds/{guild}", "bob"),
    Act("PATCH", "/guilds/{guild}", body={"name": "renamed"}),
    Act("DELETE", "/guilds/{guild}", status=204, again=404),
    Act("GET", "/guilds/{guild}/channels", "bob"),
    Act("POST", "/guilds/{guild}/channels", body={"name": "new"}),
    Act("GET", "/guilds/{guild}/members", "bob"),
    Act("PUT", "/guilds/{guild}/members/{bob_id}", body={"role": "admin"}),
    Act("DELETE", "/guilds/{guild}/members/{bob_id}", status=204, again=404),
    Act("DELETE", "/guilds/{guild}/members/@me", "bob", status=204, again=404),
    Act("POST", "/guilds/{guild}/invites", body={"max_uses": 2}, status=201),
    Act("GET", "/guilds/{guild}/invites"),
    Act("GET", "/invites/{code}", "eve"),
    Act("POST", "/invites/{code}/accept", "eve"),
    Act("DELETE", "/invites/{code}", status=204, again=404),
    Act("GET", "/channels/unread", "bob"),
    Act("GET", "/channels/{channel}", "bob"),
    Act("PATCH", "/channels/{channel}", body={"name": "renamed"}),
    Act("DELETE", "/channels/{channel}", status=204, again=404),
    Act("POST", "/channels/{channel}/messages", "bob", {"content": "three", "nonce": "n"}),
    Act("GET", "/channels/{channel}/events?since=1", "bob"),
    Act("POST", "/channels/{channel}/read", "bob", {"sequence": 1}),
    Act("GET", "/channels/{channel}/ws?since=1", "bob", status=101, upgrade=True),
    Act("GET", "/notifications/ws", "bob", status=101, upgrade=True),
]  # fmt: skip
SCENE = Scene()
acts = pytest.mark.parametrize("act", ACTS, ids=lambda act: f"{act.method} {act.path}")


def status_of(answer: Response | OpenStream) -> int:
    return answer.status if isinstance(answer, Response) else 101


def perform(scene: Scene, act: Act, **hooks: Callable[[int, Effect[Any]], None]) -> Response | OpenStream:
    return scene.world.run(scene.request(act), **hooks)


def effects_of(act: Act) -> list[Effect[Any]]:
    seen: list[Effect[Any]] = []
    answer = perform(copy.deepcopy(SCENE), act, before=lambda place, effect: seen.append(effect))
    assert status_of(answer) == act.status, answer
    return seen


def fail(at: int, failure: Exception) -> Callable[[int, Effect[Any]], None]:
    def hook(place: int, effect: Effect[Any]) -> None:
        if place == at:
            raise failure

    return hook


def state(scene: Scene) -> object:
    """Everything stored, without what a token cache or a limiter keeps: an attempt counts even when it fails."""
    stored = copy.deepcopy(scene.world.tables._state)
    stored.attempts.clear()
    return stored


@acts
@pytest.mark.parametrize("failure", [StorageUnavailable, Overloaded])
def test_refused_before_it_happened(act: Act, failure: type[Exception]) -> None:
    for at, effect in enumerate(effects_of(act)):
        if not isinstance(effect, StorageEffect):
            continue
        scene = copy.deepcopy(SCENE)
        before = state(scene)
        answer = perform(scene, act, before=fail(at, failure()))
        assert isinstance(answer, Response)
        assert answer.status == 503
        assert dict(answer.headers)["retry-after"]
        assert decoded(answer)["error"] == ("overloaded" if failure is Overloaded else "database_unavailable")
        if at == len(effects_of(act)) - 1:
            assert state(scene) == before, "nothing half done"
        assert status_of(perform(scene, act)) == act.status, "the retry works"
        assert scene.world.service.sockets.total == int(act.upgrade)


@pytest.mark.parametrize("act", ACTS[:-1], ids=lambda act: f"{act.method} {act.path}")  # the last asks for nothing
def test_it_happened_but_the_answer_was_lost(act: Act) -> None:
    """503 once; the same request again finds it done: no second guild member, message, invite use."""
    effects = effects_of(act)
    at = max(place for place, effect in enumerate(effects) if isinstance(effect, StorageEffect))
    scene, undisturbed = copy.deepcopy(SCENE), copy.deepcopy(SCENE)
    lost = perform(scene, act, after=fail(at, StorageUnavailable()))
    assert status_of(lost) == 503
    perform(undisturbed, act)
    assert shape(scene) == shape(undisturbed), "it was done, once"
    again = perform(scene, act)
    assert status_of(again) == (act.again or act.status)


def shape(scene: Scene) -> object:
    """How much is stored; identifiers differ between runs."""
    tables = scene.world.tables._state
    return (
        len(tables.users),
        len(tables.guilds),
        {
            guild: sorted((user, member.role) for user, member in members.items())
            for guild, members in tables.members.items()
        }
        if len(tables.guilds) == 1
        else None,
        [len(channel.events) for channel in tables.channels.values()],
        [(invite.uses, invite.max_uses) for invite in tables.invites.values()],
        len(tables.sessions),
        [family.revoked for family in tables.families.values()],
    )


def test_a_lost_answer_to_a_post_is_repeated_by_nonce() -> None:
    scene = copy.deepcopy(SCENE)
    act = Act("POST", "/channels/{channel}/messages", "bob", {"content": "x", "nonce": "n"})
    at = len(effects_of(act)) - 1
    perform(scene, act, after=fail(at, StorageUnavailable()))
    first, second = perform(scene, act), perform(scene, act)
    assert isinstance(first, Response)
    assert isinstance(second, Response)
    assert first.body == second.body
    assert decoded(first)["sequence"] == 3
    assert scene.world.tables.heads([scene.names["channel"]]) == {scene.names["channel"]: 3}


def test_closing_an_operation_yields_no_further_effect() -> None:
    """Closing a generator midway runs its `finally` and asks for nothing."""
    from openguild_proto.operations.dispatch import dispatch

    for act in ACTS:
        for stop in range(len(effects_of(act))):
            scene = copy.deepcopy(SCENE)
            operation = dispatch(scene.world.context(), scene.request(act))
            effect = next(operation)
            for _ in range(stop):
                effect = operation.send(scene.world.perform(effect))
            operation.close()  # RuntimeError if it yielded


def test_known_tokens_cost_no_query() -> None:
    """A token that the store has confirmed is good until its end is heard of (PROTOCOL 4.3.4)."""
    scene = copy.deepcopy(SCENE)
    seen: list[str] = []
    perform(scene, Act("GET", "/guilds/{guild}"), before=lambda place, effect: seen.append(type(effect).__name__))
    assert seen == ["FindGuildAccess"]


def test_a_defect_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        perform(copy.deepcopy(SCENE), Act("GET", "/guilds"), before=fail(0, ZeroDivisionError()))
