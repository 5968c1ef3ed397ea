"""An owner of guilds that is lost for good, and a guild with two owners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from openguild_proto.canonical.keys import encode_unpadded
from tests.incidents.conftest import Incident, pod, repeated
from tests.support.chat import User
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

NAMES = ("north.test", "south.test", "east.test")
NORTH, SOUTH, EAST = NAMES
LOST_SECS = 5  # contacts are recorded once a minute, so a live owner also counts as lost at times

pytestmark = pytest.mark.timeout(300)  # three servers per test


class Place(NamedTuple):
    """A guild of the server north with a member of each server. `file`: the statement that its owner has stored."""

    servers: tuple[ServerProcess, ...]
    users: tuple[User, ...]
    guild: str
    channel: str
    file: Path

    def owner(self, place: int) -> str:
        """Return the guild's owner, as a server reports it to its user."""
        return str(self.users[place].get(f"/guilds/{self.guild}").json().get("origin") or NAMES[place])

    def owners(self) -> list[str]:
        return [self.owner(place) for place in range(3)]

    def try_post(self, place: int, text: str) -> bool:
        body = {"content": text, "nonce": text.replace(" ", "-")}
        return self.users[place].post(f"/channels/{self.channel}/messages", body).is_success

    def post(self, place: int, text: str) -> None:
        """Post with a nonce, and retry as a client does."""
        wait_until(lambda: self.try_post(place, text), secs=90, what=f"the post {text!r}")

    def texts(self, place: int) -> list[str]:
        lines = self.users[place].ok(self.users[place].get(f"/channels/{self.channel}/messages?limit=50"))
        return [line["content"] for line in lines]

    def wait_shown(self, places: tuple[int, ...], *newest: str) -> None:
        """Wait until these servers show the same newest messages."""
        for place in places:
            wait_until(
                lambda place=place: self.texts(place)[-len(newest) :] == list(newest),
                secs=90,
                what=lambda place=place: f"{newest} at {NAMES[place]}, but {self.texts(place)}",
            )


def kill(server: ServerProcess) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait()


@pytest.fixture
def place(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Place]:
    servers = tuple(
        pod(tmp_path, DATABASE_URL=new_database(), SERVER_NAME=name, FEDERATION__MODE="open",
            FEDERATION__SIGNING_KEY=encode_unpadded(name.encode().ljust(32, b"k")),
            FEDERATION__ALLOW_PRIVATE_ADDRESSES="true", FEDERATION__OWNER_LOST_AFTER_SECS=LOST_SECS)
        for name in NAMES
    )  # fmt: skip
    for here, server in enumerate(servers):
        for at, there in enumerate(there for there in range(3) if there != here):
            server.settings[f"FEDERATION__ADDRESSES__{at}"] = f"{NAMES[there]}={servers[there].base_url}"
    with ExitStack() as running:
        for server in servers:
            running.enter_context(server.start())
        users = tuple(server.chat().user() for server in servers)
        guild = users[0].guild()
        channel = users[0].channel(guild)
        for user in users[1:]:
            user.join(f"{users[0].invite(guild)}@{NORTH}")
        statement = users[0].request("PUT", f"/guilds/{guild}/succession", json={"server": SOUTH})
        assert statement.is_success, statement.text
        file = tmp_path / "statement.json"
        file.write_text(statement.text)
        found = Place(servers, users, guild, channel, file)
        found.post(0, "before")
        found.wait_shown((1, 2), "before")
        yield found


def guilds(said: str) -> dict[str, Any]:
    """Return the output of `og admin federation guilds` by guild id."""
    shown = json.loads(said[said.index("{") :])
    return {guild["guild_id"]: guild for guild in shown["guilds"]}


def test_an_owner_is_lost_for_good(place: Place, walk: Callable[..., Incident]) -> None:
    _, south, _ = place.servers
    incident = walk("owner-lost", south)
    kill(place.servers[0])
    fired = incident.fires("OpenGuildOwnerLost", server=NORTH)
    assert fired["annotations"]["summary"].startswith(
        f"{NORTH} has been silent for so long that successors may take over 1 of its guilds"
    )
    assert not place.try_post(1, "nobody hears it")
    said = incident.ask(owner=NORTH)
    assert '"last_contact": "' in said
    assert place.guild in said
    assert guilds(incident.try_row("og admin federation guilds"))[place.guild]["origin"] == NORTH
    assert '"owner": "south.test"' in incident.mend(0, file=place.file)
    place.post(1, "we go on")
    place.post(2, "so do we")
    assert place.owner(2) == SOUTH
    place.wait_shown((1, 2), "before", "we go on", "so do we")
    assert guilds(incident.try_row("og admin federation guilds"))[place.guild].get("origin") is None
    incident.ends("OpenGuildOwnerLost")


def test_an_owner_that_does_not_matter_is_denied(place: Place, walk: Callable[..., Incident]) -> None:
    incident = walk("owner-lost", place.servers[1])
    kill(place.servers[0])
    incident.fires("OpenGuildOwnerLost", server=NORTH)
    assert '"standing": "deny"' in incident.try_row("og admin federation deny", owner=NORTH)
    incident.ends("OpenGuildOwnerLost")


def test_a_guild_has_two_owners(place: Place, walk: Callable[..., Incident]) -> None:
    """The owner revoked the statement while the successor was away, and was away itself when it was presented."""
    north, south, _ = place.servers
    kill(south)
    revoked = place.users[0].request("DELETE", f"/guilds/{place.guild}/succession")
    assert revoked.status_code == 204
    place.post(0, "of the north")
    place.wait_shown((2,), "before", "of the north")
    kill(north)
    south.start()
    incident = walk("owner-lost", south)
    incident.fires("OpenGuildOwnerLost", server=NORTH)
    incident.mend(0, file=place.file)
    place.post(1, "of the south")
    north.start()
    wait_until(
        lambda: f'"server": "{NORTH}"' in incident.ask(owner=NORTH).rpartition("[")[2],
        secs=90,
        what=lambda: incident.ask(owner=NORTH),
    )
    assert place.owners() == [NORTH, SOUTH, NORTH], "the east has heard that the statement is revoked"
    with repeated(lambda: place.try_post(0, "still of the north")):
        assert f'"owner": "{NORTH}"' in incident.mend(1, guild=place.guild, server=NORTH)
        wait_until(lambda: place.owners() == [NORTH] * 3, secs=90, what=lambda: str(place.owners()))
    for number, text in ((1, "the south is back"), (2, "the east as well")):
        place.post(number, text)
    newest = ("before", "of the north", "still of the north", "the south is back", "the east as well")
    place.wait_shown((0, 1, 2), *newest)
