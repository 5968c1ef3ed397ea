"""Each read by a user has that user's turns at the database (PROTOCOL 9.2.11), so that many of one hold up nobody else."""

from __future__ import annotations

import uuid

import pytest

from openguild_proto.effects import Effect, StorageEffect
from openguild_proto.http.message import Response
from openguild_proto.operations.context import Limit
from openguild_proto.operations.route import Route
from openguild_proto.operations.routes import ROUTES
from tests.support.world import World, decoded

READS = [route for route in ROUTES if Limit.QUERIES in route.limits]
BEHIND = {
    "/guilds": "guild_id",
    "/guilds/{guild_id}/members": "user_id",
    "/guilds/{guild_id}/bans": "banned_id",
    "/guilds/{guild_id}/invites": "code",
}


class Reader(World):
    """Alice, whose guild has a channel with a message, an invite and a ban."""

    def __init__(self) -> None:
        super().__init__()
        self.alice, bob = self.user("alice"), self.user("bob")
        self.user_id, banned = (
            decoded(self.ask("GET", "/users/me", None, who))["user_id"] for who in (self.alice, bob)
        )
        guild = decoded(self.ask("POST", "/guilds", {"name": "g"}, self.alice))["guild_id"]
        channel = decoded(self.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, self.alice))["channel_id"]
        event = decoded(self.ask("POST", f"/channels/{channel}/messages", {"content": "x"}, self.alice))["event_id"]
        code = decoded(self.ask("POST", f"/guilds/{guild}/invites", {}, self.alice))["code"]
        assert self.ask("PUT", f"/guilds/{guild}/bans/{banned}", None, self.alice).status == 200
        self.known = {
            "guild_id": guild, "channel_id": channel, "event_id": event, "code": code, "user_id": self.user_id, "banned_id": banned,
        }  # fmt: skip

    def asked_by(self, method: str, path: str, body: object) -> tuple[Response, dict[str, str]]:
        """Ask, and return in whose turns each effect of the store was."""
        turns: dict[str, str] = {}

        def before(place: int, effect: Effect[object]) -> None:
            if isinstance(effect, StorageEffect):
                turns[type(effect).__name__] = effect.in_turns_of

        return self.ask(method, path, body, self.alice, before=before), turns


@pytest.mark.parametrize("behind", [False, True], ids=["first page", "behind a line"])
@pytest.mark.parametrize("route", READS, ids=lambda route: f"{route.method} {route.template}")
def test_a_read_is_in_the_turns_of_its_user(route: Route, behind: bool) -> None:
    reader = Reader()
    path = route.template.format(**reader.known)
    if behind and route.template in BEHIND:
        path += f"?after={reader.known[BEHIND[route.template]]}"
    place = {"log": f"channel:{reader.known['channel_id']}", "epoch": 1, "sequence": 0}
    body = {"positions": [place, place | {"log": f"guild:{uuid.uuid4()}"}]} if route.method == "POST" else None
    answer, turns = reader.asked_by(route.method, path, body)
    assert answer.status == (404 if route.template.endswith("/succession") else 200)  # none is named
    assert turns
    assert set(turns.values()) == {reader.user_id}, turns
