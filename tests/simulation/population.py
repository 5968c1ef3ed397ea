"""The accounts, guilds and channels that are stored before a run begins; created once and kept as bytes."""

from __future__ import annotations

import pickle
from functools import cache
from typing import NamedTuple

from openguild_proto.client import Session
from openguild_proto.effects.roles import GrantServerRole
from openguild_proto.operations.context import Settings
from openguild_proto.settings.sections import SessionSettings
from tests.simulation.client import DEVICE
from tests.support.world import PASSWORD, World, decoded

CLIENTS = 14  # clients that post; eight more streams belong to users whose rights change
CHANNELS = 3  # in the guild that stays
MEMBERS = (*(f"user{number}" for number in range(CLIENTS)), "removed", "revoked", "returning", "reader0", "reader1")
OTHERS = ("moderator", "newcomer")  # not members of any guild


class Population(NamedTuple):
    """`state`: the pickled tables. `logins`: the answers to each account's login; `user_ids`: name -> id."""

    state: bytes
    logins: dict[str, bytes]
    user_ids: dict[str, str]
    guild_id: str
    invite: str
    channels: tuple[str, ...]
    doomed_channel: str
    doomed_guild: str
    doomed_guild_channel: str

    def session(self, name: str) -> Session:
        """Return the account's session from the beginning of the run; `name/device` for another device."""
        return Session.of(self.logins[name], 0.0)


@cache
def populate(token_secs: int) -> Population:
    """Create the population. `token_secs`: the lifetime of access tokens."""
    world = World(Settings(session=SessionSettings(access_ttl_secs=token_secs)))
    logins: dict[str, bytes] = {}
    user_ids: dict[str, str] = {}

    def register(name: str) -> str:
        account = world.ask("POST", "/users/register", {"username": name, "password": PASSWORD})
        user_ids[name] = str(decoded(account)["user_id"])
        return log_in(name)

    def log_in(name: str, device: str = DEVICE) -> str:
        body = {"identifier": name, "secret": PASSWORD, "device": {"device_id": device}}
        answer = world.ask("POST", "/sessions/login", body)
        logins[name if device == DEVICE else f"{name}/{device}"] = answer.body
        return str(decoded(answer)["access_token"])

    def make_channel(guild_id: str, name: str) -> str:
        return str(decoded(world.ask("POST", f"/guilds/{guild_id}/channels", {"name": name}, owner))["channel_id"])

    owner = register("owner")
    guild_id = decoded(world.ask("POST", "/guilds", {"name": "g"}, owner))["guild_id"]
    channels = tuple(make_channel(guild_id, f"c{number}") for number in range(CHANNELS))
    invite = str(decoded(world.ask("POST", f"/guilds/{guild_id}/invites", {}, owner))["code"])
    doomed_guild = decoded(world.ask("POST", "/guilds", {"name": "doomed"}, owner))["guild_id"]
    other_invite = decoded(world.ask("POST", f"/guilds/{doomed_guild}/invites", {}, owner))["code"]
    for name in MEMBERS:
        token = register(name)
        codes = (invite, other_invite) if name.startswith("reader") else (invite,)
        for code in codes:
            assert world.ask("POST", f"/invites/{code}/accept", {}, token).status == 200
    for name in OTHERS:
        register(name)
    log_in("revoked", "another")
    world.perform(GrantServerRole(user_id=user_ids["moderator"], role="moderator", now_ms=world.wall_ms))
    doomed = make_channel(guild_id, "doomed")
    other = make_channel(doomed_guild, "d0")
    state = pickle.dumps(world.tables._state)
    return Population(state, logins, user_ids, guild_id, invite, channels, doomed, doomed_guild, other)
