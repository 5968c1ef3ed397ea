"""Changes during a run, chosen by the seed: members, sessions, roles, channels, guilds and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.roles import RevokeServerRole
from tests.simulation.client import DEVICE, Client
from tests.simulation.clock import Activity
from tests.simulation.keys import Keys

if TYPE_CHECKING:
    from tests.simulation.scenario import Run

SHARE = 0.5  # the share of runs with one of these changes
KEY_SECS = 1.0  # from the new key to the withdrawal of the old one


class Changes:
    """Runs each change as an activity of its client."""

    def __init__(self, run: Run, secs: float) -> None:
        self._run = run
        self._secs = secs
        self._owner = run.client("owner", 1)

    def start(self) -> None:
        """Start some of the changes, each at a random time."""
        every: tuple[Callable[[], Activity[None]], ...] = (
            self._remove, self._revoke, self._return, self._demote_moderator, self._delete_channel, self._delete_guild,
            self._change_roles, self._create_channel, self._welcome, self._replace_keys, self._read,
            self._redecorate, self._show_another_name,
        )  # fmt: skip
        for change in every:
            if self._run.rng.random() < SHARE:
                self._run.begin(self._at_its_moment(change))

    def _at_its_moment(self, change: Callable[[], Activity[None]]) -> Activity[None]:
        yield self._run.clock.sleep(self._run.rng.uniform(0, self._secs))
        yield from change()

    def _ask(
        self, client: Client, method: str, path: str, body: object = None, good: tuple[int, ...] = ()
    ) -> Activity[bytes]:
        """Send a request. 404 is a success for a deletion: an earlier attempt may have made it."""
        answer = yield from client.ask(method, path, body)
        if answer.status >= 300 and answer.status not in (good or (404,)):
            self._run.violation(f"{method} {path}: {answer.status} {answer.body.decode()}")
        return answer.body

    # --- lost rights ---------------------------------------------------------------------------------

    def _membership(self, name: str) -> str:
        people = self._run.people
        return f"/guilds/{people.guild_id}/members/{people.user_ids[name]}"

    def _remove(self) -> Activity[None]:
        """Remove a member until the next invite, or ban them. A restored database may have lost the ban when they join again."""
        run = self._run
        if run.rng.random() < 0.5:
            yield from self._ask(self._owner, "DELETE", self._membership("removed"))
            return
        path = self._membership("removed").replace("/members/", "/bans/")
        yield from self._ask(self._owner, "PUT", f"{path}?reason=why")
        yield run.clock.sleep(run.rng.uniform(0, 2))
        yield from self._ask(run.client("removed", 0), "POST", f"/invites/{run.people.invite}/accept", {}, good=(403,))

    def _revoke(self) -> Activity[None]:
        other = self._run.client("revoked", 0, device="another")
        yield from self._ask(other, "DELETE", f"/sessions/devices/{DEVICE}")

    def _return(self) -> Activity[None]:
        """Remove a member and add them again."""
        run = self._run
        yield from self._ask(self._owner, "DELETE", self._membership("returning"))
        yield run.clock.sleep(run.rng.uniform(0, 2))
        yield from self._ask(run.client("returning", 0), "POST", f"/invites/{run.people.invite}/accept", {})

    def _demote_moderator(self) -> Activity[None]:
        """Revoke a server role with the command line, which only the database learns."""
        run = self._run
        while run.cluster.database.is_down:
            yield run.clock.sleep(0.5)
        run.cluster.database.perform(
            RevokeServerRole(user_id=run.people.user_ids["moderator"], role="moderator", now_ms=1)
        )

    def _delete_channel(self) -> Activity[None]:
        yield from self._ask(self._owner, "DELETE", f"/channels/{self._run.people.doomed_channel}")

    def _delete_guild(self) -> Activity[None]:
        yield from self._ask(self._owner, "DELETE", f"/guilds/{self._run.people.doomed_guild}")

    def _replace_keys(self) -> Activity[None]:
        """Sign with a new key; the old one stays trusted for a while and is then withdrawn."""
        run = self._run
        old, new = run.cluster.keys.signing, SigningKey(bytes(31) + b"\1")
        run.cluster.replace_keys(Keys(new, (old.public,)))
        yield run.clock.sleep(KEY_SECS)
        run.cluster.replace_keys(Keys(new))

    # --- other changes -------------------------------------------------------------------------------

    def _change_roles(self) -> Activity[None]:
        """Change roles without losing a right: the streams are checked and stay open."""
        for name in ("user0", "user1", "user7"):
            role = self._run.rng.choice(("contributor", "maintainer", "moderator"))
            yield from self._ask(self._owner, "PUT", self._membership(name), {"role": role})

    def _create_channel(self) -> Activity[None]:
        """Create a channel. Watchers learn of it and of all its messages; a member follows it."""
        run = self._run
        body = yield from self._ask(self._owner, "POST", f"/guilds/{run.people.guild_id}/channels", {"name": "new"})
        channel_id = str(msgspec.json.decode(body)["channel_id"])
        run.channels.append(channel_id)
        run.follow("user5", channel_id, 0)
        for number in range(3):
            yield from run.post(self._owner, channel_id, f"new.{number}")
            yield run.clock.sleep(run.rng.uniform(0, 1))

    def _welcome(self) -> Activity[None]:
        """Make a user a member who already has a notification stream."""
        run = self._run
        run.watch("newcomer", 2)
        yield run.clock.sleep(run.rng.uniform(0, 1))
        yield from self._ask(run.client("newcomer", 1), "POST", f"/invites/{run.people.invite}/accept", {})
        run.follow("newcomer", run.people.channels[0], 2)

    def _redecorate(self) -> Activity[None]:
        """Rename the guild and a channel repeatedly."""
        run = self._run
        for number in range(4):
            path, body = run.rng.choice((
                (f"/guilds/{run.people.guild_id}?reason=why", {"name": f"g{number}"}),
                (f"/channels/{run.people.channels[0]}", {"topic": f"話題 {number}", "position": number}),
                (f"/channels/{run.people.channels[1]}", {"name": f"c{number}"}),
            ))  # fmt: skip
            yield from self._ask(self._owner, "PATCH", path, body)
            yield run.clock.sleep(run.rng.uniform(0, 1))

    def _show_another_name(self) -> Activity[None]:
        yield from self._ask(self._run.client("user1", 0), "PATCH", "/users/@me", {"display_name": "ユーザー"})

    def _read(self) -> Activity[None]:
        """Move a read position, of which the reader's other devices get a hint."""
        run = self._run
        for _ in range(3):
            yield from self._ask(run.client("user1", 2), "POST", f"/channels/{run.people.channels[1]}/read", {})
            yield run.clock.sleep(run.rng.uniform(0, 1))
