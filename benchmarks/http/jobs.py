"""The jobs of the HTTP benchmark: the requests, their number, and the servers that can do them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.http.servers import Target
from benchmarks.http.wire import request
from tests.support.chat import PASSWORD, Chat, User

CHANNELS = 16
CONNECTIONS = 64
EVENTS = 100  # in each channel at the start
BEHIND = 5  # events of each channel that a sync returns
EMOJI = tuple(chr(0x1F600 + place) for place in range(20))  # the maximum for a message


class Household:
    """A user on one server, with a guild of CHANNELS channels with EVENTS messages each."""

    def __init__(self, target: Target) -> None:
        self.target = target
        chat = Chat(target.url)
        self.user: User = chat.user()
        guild = self.user.guild()
        self.channels = [self.user.channel(guild, f"c{number}") for number in range(CHANNELS)]
        self.messages: list[str] = []  # their paths, channel by channel
        self._turns = 0  # calls of `reaction`
        for _ in range(EVENTS):
            for channel in self.channels:
                done = self.user.ok(self.user.post(f"/channels/{channel}/messages", {"content": "x" * 100}))
                self.messages.append(f"/channels/{channel}/events/{done['event_id']}")

    def each(self, method: str, path: str, body: object = None) -> list[bytes]:
        """Return a request of this user for each channel."""
        return [request(method, path.format(channel), self.user.token, body) for channel in self.channels]

    def post(self, count: int) -> list[bytes]:
        return self.each("POST", "/channels/{}/messages", {"content": "x" * 100})

    def edit(self, count: int) -> list[bytes]:
        """Return edits of `count` messages, each with a new text."""
        return [
            request("PATCH", path, self.user.token, {"content": secrets.token_hex(50)})
            for path in self.messages[:count]
        ]

    def reaction(self, count: int) -> list[bytes]:
        """Return requests that add another emoji to `count` messages, or remove one by one after all were added."""
        turn, self._turns = self._turns, self._turns + 1
        action = "remove" if turn // len(EMOJI) % 2 else "add"
        body = {"emoji": EMOJI[turn % len(EMOJI)], "action": action}
        return [request("POST", f"{path}/reactions", self.user.token, body) for path in self.messages[:count]]

    def page(self, count: int) -> list[bytes]:
        return self.each("GET", "/channels/{}/events?limit=50")

    def folded_page(self, count: int) -> list[bytes]:
        return self.each("GET", "/channels/{}/messages?limit=50")

    def unread(self, count: int) -> list[bytes]:
        return [request("GET", "/channels/unread", self.user.token)]

    def version(self, count: int) -> list[bytes]:
        return [request("GET", "/version")]

    def register(self, count: int) -> list[bytes]:
        names = [f"u{secrets.token_hex(8)}" for _ in range(count)]
        return [request("POST", "/users/register", "", {"username": name, "password": PASSWORD}) for name in names]

    def login(self, count: int) -> list[bytes]:
        body = {"identifier": self.user.name, "secret": PASSWORD, "device": {"device_id": "bench"}}
        return [request("POST", "/sessions/login", "", body)]

    def sync(self, count: int) -> list[bytes]:
        positions = []
        for channel in self.channels:
            page = self.user.get(f"/channels/{channel}/events?limit={BEHIND + 1}")
            place = {"log": f"channel:{channel}", "epoch": int(page.headers["x-openguild-epoch"])}
            positions.append(place | {"sequence": page.json()[0]["sequence"]})
        return [request("POST", "/sync", self.user.token, {"positions": positions})]


class Job(NamedTuple):
    """A job: `count` requests in a window, over `connections`. `servers` are those that can do it."""

    requests: Callable[[Household, int], list[bytes]]
    count: int
    connections: int = CONNECTIONS
    servers: tuple[str, ...] = ("openguild", "fastapi")


JOBS = {
    "version": Job(Household.version, 6_000, servers=("openguild", "fastapi", "bare-asgi")),
    "post": Job(Household.post, 1_200),
    "edit": Job(Household.edit, 1_200, servers=("openguild",)),
    "reaction": Job(Household.reaction, 1_200, servers=("openguild",)),
    "page": Job(Household.page, 600),
    "folded page": Job(Household.folded_page, 400),
    "unread": Job(Household.unread, 800),
    "sync": Job(Household.sync, 300),
    "register": Job(Household.register, 40, connections=4),
    "login": Job(Household.login, 40, connections=4),
}
