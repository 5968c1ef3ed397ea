"""The actions of users: joining, posting, changing posts, leaving, banning, and managing guilds where they may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from openguild_proto.http.message import Response
from tests.simulation.clock import Activity, Wait
from tests.simulation.federation.books import Posted
from tests.simulation.federation.population import User
from tests.support.world import request

if TYPE_CHECKING:
    from tests.simulation.federation.scenario import Run
    from tests.simulation.federation.server import Server

GIVE_UP_SECS = 40.0  # timeout of one request
TRIES = 5
AWAY = frozenset({0, 429, 502, 503, 504})
EMOJI = ("\N{WAVING HAND SIGN}", "\N{SPARKLES}")
DEEDS = {
    "post": 34, "edit": 8, "redact": 7, "react": 9, "clear": 3, "pin": 5, "join": 9, "leave": 3, "remove": 4, "role": 5,
    "make_channel": 4, "change_channel": 3, "drop_channel": 2, "rename": 2, "read": 4, "mark": 4,
    "ban": 2, "unban": 4,
}  # fmt: skip


class Actor:
    """One user. `wants`: guilds that they have asked to join and have not left."""

    def __init__(self, run: Run, user: User) -> None:
        self.run = run
        self.user = user
        self.rng = run.rng
        self.server: Server = run.servers[user.server]
        self.wants: dict[str, bool] = {}

    def live(self, deeds: int, secs: float) -> Activity[None]:
        """Take this many actions within `secs`."""
        for home in self.run.people.guilds:
            if home.server != self.user.server and self.rng.random() < 0.7:
                yield self.run.clock.sleep(self.rng.uniform(0, secs / 20))
                yield from self.join(home.guild_id)
        for _ in range(deeds):
            yield self.run.clock.sleep(self.rng.uniform(0, 2 * secs / deeds))
            (deed,) = self.rng.choices(list(DEEDS), weights=list(DEEDS.values()))
            yield from getattr(self, deed)()

    # --- requests ------------------------------------------------------------------------------------

    def ask(
        self, method: str, path: str, body: Any = None, *, tries: int = TRIES, key: str | None = None
    ) -> Activity[Response]:
        """Send a request to the user's own server, again while it cannot answer. Status 0: there was no answer."""
        answer = Response(status=0)
        for attempt in range(tries):
            if attempt:
                yield self.run.clock.sleep(self.rng.uniform(0.5, 6))
            sent = request(method, path, body, self.user.token)
            if key is not None:
                sent = msgspec.structs.replace(sent, headers=(*sent.headers, ("idempotency-key", key)))
            answer = yield self._sending(sent)
            if answer.status not in AWAY:
                break
        self.run.note(self.user.name, method, answer.status)
        if answer.status == 401:
            self.run.violation(f"{self.user.name} is not let in: {answer.body.decode()}")
        return answer

    def _sending(self, sent: Any) -> Wait:
        def wait(resume: Any) -> None:
            is_open = True

            def end(answer: Response) -> None:
                nonlocal is_open
                if is_open:
                    is_open = False
                    resume(answer)

            self.run.clock.later(GIVE_UP_SECS, end, Response(status=0))
            if self.server.is_up:
                self.server.serve(sent, lambda answer: self.run.clock.later(0.001, end, answer))
            else:
                self.run.clock.later(0.01, end, Response(status=0))

        return wait

    # --- choices -------------------------------------------------------------------------------------

    def _guild(self) -> str | None:
        state = self.server.state
        guilds = sorted(guild_id for guild_id, members in state.members.items() if self.user.user_id in members)
        return self.rng.choice(guilds) if guilds else None

    def _channel(self) -> str | None:
        guild_id = self._guild()
        channels = self.server.state.channels_of_guild(guild_id) if guild_id is not None else []
        return self.rng.choice(channels).record.channel_id if channels else None

    def _message(self, *, own: bool = False) -> str | None:
        """Return the path of a message."""
        channel_id = self._channel()
        if channel_id is None:
            return None
        messages = list(self.server.state.channels[channel_id].messages.values())
        if own:
            messages = [message for message in messages if message.author_id == self.user.user_id]
        return f"{channel_id}/events/{self.rng.choice(messages[-6:]).event_id}" if messages else None

    def _member(self, guild_id: str) -> str:
        return self.rng.choice(sorted(self.server.state.members[guild_id]))

    def _unique(self) -> str:
        return f"{self.rng.getrandbits(64):016x}"

    # --- messages ------------------------------------------------------------------------------------

    def post(self) -> Activity[None]:
        channel_id = self._channel()
        if channel_id is None:
            return
        record = self.server.state.channels[channel_id].record
        text, began = f"text {self._unique()}", self.run.clock.now
        self.run.report.posts += 1
        body: dict[str, Any] = {"content": text, "nonce": self._unique()}
        answer = yield from self.ask("POST", f"/channels/{channel_id}/messages", body)
        if answer.status == 200:
            owner = record.origin or self.user.server
            event_id = msgspec.json.decode(answer.body)["event_id"]
            self.run.books.posted.append(Posted(owner, channel_id, event_id, text, began))

    def edit(self) -> Activity[None]:
        message = self._message(own=True)
        if message is not None:
            yield from self.ask("PATCH", f"/channels/{message}", {"content": f"edit {self._unique()}"})

    def redact(self) -> Activity[None]:
        message = self._message(own=self.rng.random() < 0.7)
        if message is not None:
            yield from self.ask("DELETE", f"/channels/{message}")

    def react(self) -> Activity[None]:
        message = self._message()
        if message is not None:
            body = {"emoji": self.rng.choice(EMOJI), "action": self.rng.choice(("add", "add", "remove"))}
            yield from self.ask("POST", f"/channels/{message}/reactions", body)

    def clear(self) -> Activity[None]:
        message = self._message()
        if message is not None:
            emoji = self.rng.choice((*EMOJI, None))
            query = "" if emoji is None else f"?{urlencode({'emoji': emoji})}"
            yield from self.ask("DELETE", f"/channels/{message}/reactions{query}")

    def pin(self) -> Activity[None]:
        message = self._message()
        if message is not None:
            method = self.rng.choice(("PUT", "PUT", "DELETE"))
            yield from self.ask(method, f"/channels/{message.replace('/events/', '/pins/')}")

    def read(self) -> Activity[None]:
        channel_id = self._channel()
        if channel_id is not None:
            yield from self.ask("GET", f"/channels/{channel_id}/messages", tries=1)

    def mark(self) -> Activity[None]:
        channel_id = self._channel()
        if channel_id is not None:
            yield from self.ask("POST", f"/channels/{channel_id}/read", {}, tries=1)

    # --- guilds --------------------------------------------------------------------------------------

    def join(self, guild_id: str | None = None, *, tries: int = TRIES) -> Activity[None]:
        away = [home for home in self.run.people.guilds if home.server != self.user.server]
        home = next((home for home in away if home.guild_id == guild_id), None) or self.rng.choice(away)
        self.wants[home.guild_id] = True
        answer = yield from self.ask("POST", f"/invites/{home.code}@{home.server}/accept", tries=tries)
        if answer.status >= 400 and answer.status not in AWAY:
            self.wants[home.guild_id] = False

    def leave(self) -> Activity[None]:
        guild_id = self._guild()
        if guild_id is not None:
            self.wants[guild_id] = False
            yield from self.ask("DELETE", f"/guilds/{guild_id}/members/@me")

    def remove(self) -> Activity[None]:
        guild_id = self._guild()
        if guild_id is not None:
            yield from self.ask("DELETE", f"/guilds/{guild_id}/members/{self._member(guild_id)}")

    def ban(self) -> Activity[None]:
        """Ban a user, usually a member."""
        guild_id = self._guild()
        if guild_id is not None:
            anybody = self.rng.choice(self.run.people.users).user_id
            user_id = self._member(guild_id) if self.rng.random() < 0.7 else anybody
            yield from self.ask("PUT", f"/guilds/{guild_id}/bans/{user_id}?reason={self._unique()}")

    def unban(self) -> Activity[None]:
        guild_id = self._guild()
        banned = sorted(self.server.state.bans.get(guild_id or "", {}))
        if banned:
            yield from self.ask("DELETE", f"/guilds/{guild_id}/bans/{self.rng.choice(banned)}")

    def role(self) -> Activity[None]:
        guild_id = self._guild()
        if guild_id is not None:
            role = self.rng.choice(("admin", "moderator", "member", "member", "viewer"))
            yield from self.ask("PUT", f"/guilds/{guild_id}/members/{self._member(guild_id)}", {"role": role})

    def make_channel(self) -> Activity[None]:
        guild_id = self._guild()
        if guild_id is None:
            return
        name = self._unique()
        if self.rng.random() < 0.5:
            yield from self.ask("POST", f"/guilds/{guild_id}/channels", {"name": name}, key=self._unique())
        else:
            self.run.books.asked_once.append((guild_id, name))
            yield from self.ask("POST", f"/guilds/{guild_id}/channels", {"name": name}, tries=1)

    def change_channel(self) -> Activity[None]:
        channel_id = self._channel()
        if channel_id is not None:
            yield from self.ask("PATCH", f"/channels/{channel_id}", {"topic": f"topic {self._unique()}"})

    def drop_channel(self) -> Activity[None]:
        channel_id = self._channel()
        if channel_id is not None:
            yield from self.ask("DELETE", f"/channels/{channel_id}")

    def rename(self) -> Activity[None]:
        guild_id = self._guild()
        if guild_id is not None:
            yield from self.ask("PATCH", f"/guilds/{guild_id}", {"name": f"name {self._unique()}"})
