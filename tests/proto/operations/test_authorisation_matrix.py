"""Every route and socket × every role × own and foreign guild, generated from the route table (PROTOCOL 5.2, 5.3).

The rules are written down here a second time, from the text of PROTOCOL 5 and not from the code; the code must answer what
they say. A new route without a rule fails.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import dataclass

import pytest

from openguild_proto.effects.bans import BanUser
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole
from openguild_proto.effects.timeouts import TimeOutMember
from openguild_proto.http.message import OpenStream
from openguild_proto.operations.route import Route
from openguild_proto.operations.routes import ROUTES
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import Author
from openguild_proto.schemas.accounts import RefreshToken
from tests.support.deeds import append
from tests.support.world import PASSWORD, World, decoded, request

Roles = tuple[str | None, ...]
RANK = ["guest", "viewer", "contributor", "member", "maintainer", "moderator", "admin", "owner"]
LOWEST = {
    "READ": "guest", "SEND_MESSAGES": "contributor", "MANAGE_MESSAGES": "moderator",
    "CREATE_CHANNELS": "maintainer", "CREATE_INVITES": "maintainer",
    "MANAGE_MEMBERS": "moderator", "RENAME": "moderator", "DELETE": "admin",
}  # fmt: skip
OPEN = {  # nothing to steal: probes, the description, and what makes an account or a session
    "GET /server/keys", "GET /health", "GET /live", "GET /ready", "GET /version", "GET /metrics", "GET /openapi.json",
    "GET /asyncapi.json",
    "POST /users/register", "POST /sessions/login", "GET /gateway", "GET /client/v1",
    "GET /.well-known/openguild", "GET /federation/v1/keys",
    "GET /mls/key-packages", "GET /mls/handshake-test-vectors", "POST /mls/key-packages/{identity}/rotate",
}  # fmt: skip
OWN = {  # everybody's own things: any account; `True`: only where the caller is a member
    "GET /users/me": False, "GET /sessions/devices": False, "DELETE /sessions/devices/{device_id}": False, "GET /guilds": False,
    "POST /guilds": False, "GET /channels/unread": False, "GET /notifications/ws": False, "GET /invites/{code}": False,
    "POST /invites/{code}/accept": False, "DELETE /guilds/{guild_id}/members/@me": True,
    "PATCH /users/@me": False, "GET /users/@me/log": False, "GET /inbox": False, "POST /sync": False,
    "GET /search/messages": False, "PUT /users/@me/presence": False,
    "POST /users/@me/password": False, "POST /users/@me/delete": False,
}  # fmt: skip
OF_OWNERS = {  # of the guild's own owners, whatever the server roles: what they get where federation is off
    "GET /guilds/{guild_id}/succession": 404, "PUT /guilds/{guild_id}/succession": 404,
    "DELETE /guilds/{guild_id}/succession": 204,
}  # fmt: skip
ROLES = [None, *RANK]
BANNED = "0b0d3c1e-7a51-4f43-a2b4-1a2f3f8b6c11"
QUERIES = {"GET /search/messages": "?q=x"}
BODIES = {
    "Credentials": {"username": "newcomer", "password": PASSWORD}, "Name": {"name": "x"}, "RoleBody": {"role": "guest"},
    "NewInvite": {}, "PostMessage": {"content": "x"}, "MarkReadBody": {}, "EditMessage": {"content": "y"},
    "NewChannel": {"name": "x"}, "ChannelChange": {"topic": "x"}, "ProfileChange": {"display_name": "X"},
    "SyncRequest": {"positions": []}, "TypingPreview": {"preview": "x"}, "ChosenPresence": {"status": "idle"},
    "Successor": {"server": "other.example"},
    "ReactToMessage": {"emoji": "\N{THUMBS UP SIGN}"},
    "PasswordChange": {"current_password": PASSWORD, "new_password": "battery staple"},
    "TimeOut": {"secs": 60}, "PasswordConfirmation": {"current_password": PASSWORD},
    "Login": {"identifier": "owner", "secret": PASSWORD, "device": {"device_id": "d"}},
}  # fmt: skip


@dataclass
class Scene:
    """An owner's guild with a channel, an invite, a guest who is timed out, and a ban; and one who asks."""

    world: World
    guild: str
    channel: str
    code: str
    guest: str
    asking: str
    asking_id: str
    message: str  # in the channel, by the one who asks
    tables: dict[Roles, bytes]  # the world's, pickled, by the server, guild and channel role of the one who asks

    def answer(self, route: Route, token: str | None, prefix: str = "") -> int:
        """The status, 101 for a stream that opens. It may change the scene's tables, so a scene is for one answer."""
        service, self.world.service = self.world.service, copy.copy(self.world.service)
        self.world.service.sockets = StreamLimiter(10, 10, 10)
        try:
            user_id = BANNED if name_of(route) == "DELETE /guilds/{guild_id}/bans/{user_id}" else self.guest
            path = route.template.replace("{guild_id}", self.guild).replace("{channel_id}", self.channel)
            path = path.replace("{user_id}", user_id).replace("{code}", self.code).replace("{device_id}", "d")
            path = path.replace("{event_id}", self.message) + QUERIES.get(name_of(route), "")
            body = BODIES[route.body.__name__] if route.body is not None and route.auth != "refresh" else None
            asked = request(route.method, prefix + path, body, token, upgrade=route.auth == "socket")
            answered = self.world.run(asked)
            return 101 if isinstance(answered, OpenStream) else answered.status
        finally:
            self.world.service = service


@pytest.fixture(scope="module")
def stage() -> Scene:
    world = World()
    owner, guest, asking = (world.user(name) for name in ("owner", "guest", "asking"))
    ids = [decoded(world.ask("GET", "/users/me", token=token))["user_id"] for token in (owner, guest, asking)]
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, owner))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, owner))["channel_id"]
    code = decoded(world.ask("POST", f"/guilds/{guild}/invites", {}, owner))["code"]
    world.perform(GrantGuildRole(guild_id=guild, user_id=ids[1], role="guest", now_ms=0))
    world.perform(
        TimeOutMember(author=Author(ids[0]), guild_id=guild, user_id=ids[1], ends_ms=4_000_000_000_000, now_ms=0)
    )
    world.perform(BanUser(author=Author(ids[0]), guild_id=guild, user_id=BANNED, now_ms=0))
    for window in ("user_messages", "address_messages", "user_typing", "user_queries"):
        setattr(world.service, window, SlidingWindow(1_000_000, 60))
    message = append(channel, ids[2])
    world.perform(message)
    tables = {(None, None, None): pickle.dumps(world.tables)}
    return Scene(world, guild, channel, code, ids[1], asking, ids[2], message.event_id, tables)


def with_roles(stage: Scene, *roles: str | None) -> Scene:
    """`roles`: on the server, in the guild and in the channel."""
    scene = copy.copy(stage)
    scene.world = copy.copy(stage.world)
    made = roles in stage.tables
    scene.world.tables = pickle.loads(stage.tables[roles if made else (None, None, None)])
    if not made:
        grant(scene, *roles)
        stage.tables[roles] = pickle.dumps(scene.world.tables)
    return scene


def grant(scene: Scene, server: str | None, guild: str | None, channel: str | None) -> None:
    if server is not None:
        scene.world.perform(GrantServerRole(user_id=scene.asking_id, role=server, now_ms=0))
    if guild is not None:
        scene.world.perform(GrantGuildRole(guild_id=scene.guild, user_id=scene.asking_id, role=guild, now_ms=0))
    if channel is not None:
        scene.world.perform(GrantChannelRole(channel_id=scene.channel, user_id=scene.asking_id, role=channel, now_ms=0))


def name_of(route: Route) -> str:
    return f"{route.method} {route.template}"


def rank(role: str | None) -> int:
    return RANK.index(role) if role is not None else -1


def expected(route: Route, server: str | None, guild: str | None, channel: str | None) -> int:
    """What an account with these roles gets (PROTOCOL 5)."""
    if name_of(route) in OWN:
        return 404 if OWN[name_of(route)] and guild is None else route.status
    in_channel = "{channel_id}" in route.template
    member = guild is not None or (in_channel and channel is not None)
    if not member and rank(server) < rank("moderator"):
        return 404  # existence does not leak
    if name_of(route) in OF_OWNERS:
        return OF_OWNERS[name_of(route)] if guild == "owner" else 403
    needed = "MANAGE_MEMBERS" if route.permission == "self or MANAGE_MEMBERS" else route.permission
    highest = max(rank(server), rank(guild), rank(channel) if in_channel else -1)
    return route.status if highest >= rank(LOWEST[needed]) else 403


def test_every_route_has_a_rule() -> None:
    for route in ROUTES:
        name = name_of(route)
        if route.auth in {"none", "gateway", "refresh"}:
            assert name in OPEN or (route.auth == "refresh" and route.body is RefreshToken), name
        elif route.auth == "server":
            assert route.template.startswith("/federation/"), name
            continue
        else:
            assert (name in OWN) == (route.permission == "self"), name
            assert name in OWN or route.permission in {*LOWEST, "self or MANAGE_MEMBERS"}, name
        assert route.body is None or route.body.__name__ in BODIES or route.auth == "refresh", (
            f"give {name} a body here"
        )


GUARDED = [route for route in ROUTES if route.needs_token]
guarded = pytest.mark.parametrize("route", GUARDED, ids=name_of)


@guarded
def test_roles(stage: Scene, route: Route) -> None:
    """All combinations of server, guild and channel roles; a guild without the role is the foreign one."""
    channels = ROLES if "{channel_id}" in route.template else [None]
    surprises = []
    for roles in itertools.product(ROLES, ROLES, channels):
        found = with_roles(stage, *roles).answer(route, stage.asking)
        if found != expected(route, *roles):
            surprises.append(f"server {roles[0]}, guild {roles[1]}, channel {roles[2]}: {found}")
    assert surprises == []


@guarded
@pytest.mark.parametrize("token", [None, "", "x", "a.b", "expired", "revoked"])
def test_without_a_living_token_nothing_is_answered(stage: Scene, route: Route, token: str | None) -> None:
    scene = with_roles(stage, "owner", "owner", None)
    if token == "revoked":
        token = scene.asking
        claims = scene.world.service.tokens.verify(token, scene.world.wall_ms)
        scene.world.service = copy.copy(scene.world.service)
        scene.world.service.tokens = copy.deepcopy(scene.world.service.tokens)
        scene.world.service.tokens.revoke_session(claims.session_id)
    elif token == "expired":
        token, scene.world.wall_ms = scene.asking, scene.world.wall_ms + 43_201_000
    for prefix in ("", "/client/v1"):
        assert scene.answer(route, token, prefix) == 401


@guarded
def test_the_prefix_changes_nothing(stage: Scene, route: Route) -> None:
    for roles in itertools.product([None, "moderator"], ROLES):
        scene = with_roles(stage, *roles, None)
        assert scene.answer(route, stage.asking, "/client/v1") == expected(route, *roles, None)


def test_nobody_gives_a_role_above_their_own_or_removes_an_equal(stage: Scene) -> None:
    """Over all ranks (PROTOCOL 5.5); owners are equals who may change each other's role, and the last one's cannot be changed."""
    for giver, given, held in itertools.product(RANK, RANK, RANK):
        scene = with_roles(stage, None, giver, None)
        scene.world.perform(GrantGuildRole(guild_id=scene.guild, user_id=scene.guest, role=held, now_ms=0))
        path = f"/guilds/{scene.guild}/members/{scene.guest}"
        may = rank(giver) >= rank("moderator")
        put = may and rank(given) <= rank(giver) and (rank(held) < rank(giver) or giver == held == "owner")
        kicked = may and rank(held) < rank(giver)
        assert scene.world.ask("PUT", path, {"role": given}, scene.asking).status == (200 if put else 403), (
            giver,
            given,
            held,
        )
        scene.world.perform(GrantGuildRole(guild_id=scene.guild, user_id=scene.guest, role=held, now_ms=0))
        assert scene.world.ask("DELETE", path, None, scene.asking).status == (204 if kicked else 403), (giver, held)


def test_nobody_bans_an_equal_or_themselves(stage: Scene) -> None:
    """Over all ranks (PROTOCOL 5.5.5); so the last owner of a guild cannot be banned."""
    for banning, held in itertools.product(RANK, [None, *RANK]):
        scene = with_roles(stage, None, banning, None)
        user_id = BANNED if held is None else scene.guest
        if held is not None:
            scene.world.perform(GrantGuildRole(guild_id=scene.guild, user_id=scene.guest, role=held, now_ms=0))
        may = rank(banning) >= rank("moderator")
        expects = 200 if may and rank(held) < rank(banning) else 403
        path = f"/guilds/{scene.guild}/bans/"
        assert scene.world.ask("PUT", path + user_id, None, scene.asking).status == expects, (banning, held)
        assert scene.world.ask("PUT", path + scene.asking_id, None, scene.asking).status == 403
