"""Pages of every list: cursors that outlive their row, ids of clients of the release before, and what is neither."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass

import pytest

from tests.support.world import World, decoded


@dataclass
class Lists:
    """Alice's five guilds, the last one with five channels, members and invites; each made a second after the one before."""

    world: World
    alice: str
    guilds: list[str]
    channels: list[str]
    members: list[str]
    invites: list[str]

    def path(self, name: str) -> str:
        return {"guilds": "/guilds", "unread": "/channels/unread"}.get(name, f"/guilds/{self.guilds[-1]}/{name}")

    def keys(self, name: str) -> list[str]:
        return {"guilds": self.guilds, "members": self.members, "invites": self.invites}.get(name, self.channels)

    def page(self, name: str, **query: object) -> tuple[list[str], str | None]:
        """The keys of one page, and the next one's `after`."""
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        answer = self.world.ask("GET", f"{self.path(name)}?{asked}", token=self.alice)
        assert answer.status == 200, answer.body
        key = {"guilds": "guild_id", "members": "user_id", "invites": "code"}.get(name, "channel_id")
        return [line[key] for line in decoded(answer)], dict(answer.headers).get("x-next-after")

    def remove(self, name: str, key: str) -> None:
        path = f"/{'channels' if name == 'unread' else name}/{key}" if name != "members" else f"{self.path(name)}/{key}"
        assert self.world.ask("DELETE", path, token=self.alice).status == 204


@pytest.fixture
def lists() -> Lists:
    world = World()
    alice = world.user("alice")
    made = Lists(world, alice, [], [], [], [])

    def make(path: str, body: object, key: str, token: str = alice) -> str:
        world.wall_ms += 1_000
        return str(decoded(world.ask("POST", path, body, token))[key])

    made.guilds = [make("/guilds", {"name": "g"}, "guild_id") for _ in range(5)]
    guild = made.guilds[-1]
    made.channels = [make(f"/guilds/{guild}/channels", {"name": "c"}, "channel_id") for _ in range(5)]
    made.invites = [make(f"/guilds/{guild}/invites", {}, "code") for _ in range(5)]
    code = made.invites[0]
    made.members = [str(decoded(world.ask("GET", "/users/me", token=alice))["user_id"])]
    made.members += [make(f"/invites/{code}/accept", None, "user_id", world.user(f"m{number}")) for number in range(4)]
    return made


every_list = pytest.mark.parametrize("name", ["guilds", "channels", "members", "invites", "unread"])


@every_list
def test_pages_follow_each_other_by_their_cursors(lists: Lists, name: str) -> None:
    seen, after = lists.page(name, limit=2)
    while after is not None:
        more, after = lists.page(name, limit=2, after=after)
        seen += more
    assert seen == lists.keys(name)


@every_list
def test_a_page_follows_although_the_line_before_is_gone(lists: Lists, name: str) -> None:
    seen, after = lists.page(name, limit=2)
    lists.remove(name, seen[-1])
    rest, last = lists.page(name, after=after)
    assert (seen + rest, last) == (lists.keys(name), None)


@every_list
def test_the_id_of_a_line_is_a_cursor_too(lists: Lists, name: str) -> None:
    keys = lists.keys(name)
    for place, key in enumerate(keys):
        assert lists.page(name, after=key)[0] == keys[place + 1 :]


@every_list
def test_what_leads_nowhere_is_refused_by_name(lists: Lists, name: str) -> None:
    gone = lists.keys(name)[1]
    lists.remove(name, gone)
    wrong = ["", "*", "1.*", f"{10**15 - 1}.{uuid.UUID(int=0)}", f"-1.{uuid.UUID(int=0)}", str(uuid.UUID(int=0)), gone]
    for after in wrong:
        answer = lists.world.ask("GET", f"{lists.path(name)}?after={after}", token=lists.alice)
        assert (answer.status, decoded(answer)["error"]) == (400, "validation_error"), after
        assert decoded(answer)["details"][0]["field"] == "after"


def test_a_list_does_not_tell_what_others_have(lists: Lists) -> None:
    """A guild, channel or member of others is answered as one that never was."""
    world = lists.world
    eve = world.user("eve")
    own = decoded(world.ask("POST", "/guilds", {"name": "e"}, eve))["guild_id"]
    paths = (
        "/guilds",
        "/channels/unread",
        f"/guilds/{own}/channels",
        f"/guilds/{own}/members",
        f"/guilds/{own}/invites",
    )
    for path, foreign in itertools.product(
        paths, (lists.guilds[0], lists.channels[0], lists.members[0], lists.invites[0])
    ):
        answers = [world.ask("GET", f"{path}?after={key}", token=eve) for key in (foreign, uuid.UUID(int=0))]
        assert [answer.status for answer in answers] == [400, 400]
        assert answers[0].body == answers[1].body
