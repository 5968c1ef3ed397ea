"""The accounts, guilds and channels on each server, created once and kept as bytes."""

from __future__ import annotations

import pickle
from functools import cache
from typing import NamedTuple

import msgspec

from openguild_proto.settings.sections import SessionSettings
from tests.support.homeservers import Federation

NAMES = ("north.test", "south.test", "east.test")
USERS = 2  # per server
SESSIONS = SessionSettings(access_ttl_secs=2_592_000)


class User(NamedTuple):
    """An account, with its access token."""

    server: str
    name: str
    user_id: str
    token: str


class Home(NamedTuple):
    """A guild, with an invite."""

    server: str
    guild_id: str
    code: str


class Population(NamedTuple):
    """`states`: server -> pickled tables."""

    states: dict[str, bytes]
    users: tuple[User, ...]
    guilds: tuple[Home, ...]


@cache
def populate() -> Population:
    """Create two users on each server, the first of whom owns a guild with two channels."""
    federation = Federation(*NAMES)
    users: list[User] = []
    guilds: list[Home] = []
    for place, server in enumerate(federation.servers.values()):
        server.service.settings = msgspec.structs.replace(server.service.settings, session=SESSIONS)
        server.tables._state.own_keys.clear()
        tokens = [server.user(f"{server.name[0]}{number}") for number in range(USERS)]
        for token in tokens:
            me = server.ask_for(token, "GET", "/users/me")
            users.append(User(server.name, me["username"], me["user_id"], token))
        guild_id = server.ask_for(tokens[0], "POST", "/guilds", {"name": f"guild {place}"})["guild_id"]
        for name in ("c0", "c1"):
            server.ask_for(tokens[0], "POST", f"/guilds/{guild_id}/channels", {"name": name})
        code = server.ask_for(tokens[0], "POST", f"/guilds/{guild_id}/invites")["code"]
        guilds.append(Home(server.name, guild_id, code))
    states = {name: pickle.dumps(server.tables._state) for name, server in federation.servers.items()}
    return Population(states, tuple(users), tuple(guilds))
