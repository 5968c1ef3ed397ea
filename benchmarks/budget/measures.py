"""Counts instructions per request and per delivery, with one request at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.budget.counted import CountedServer
from benchmarks.http.wire import Connection, request
from benchmarks.load.actors import Crowd
from tests.support.chat import User

WARM, TURNS, WINDOWS = 30, 20, 8
PAGE_EVENTS = 50
SUBSCRIBERS = 400
RELEASED = 10
CHANGED = 20  # messages

Counts = dict[str, float]


def measure(directory: Path, progress: Callable[[str], None]) -> tuple[Counts, int]:
    """Return the instructions per operation, and those of the yardstick."""
    progress("start under valgrind")
    with CountedServer(directory) as server:
        unit = server.unit()
        user = server.user
        guild = user.guild()
        channel = user.channel(guild)
        with Connection(server.server.port) as connection:
            post = request("POST", f"/channels/{channel}/messages", user.token, {"content": "x" * 100})
            connection.ask(post)
            for _ in range(PAGE_EVENTS):
                connection.ask(post)
            requests = {
                "version": [request("GET", "/version")],
                "post": [post],
                "edit": _edits(user, channel),
                "reaction": _reactions(user, channel),
                "page of 50": [request("GET", f"/channels/{channel}/events?limit={PAGE_EVENTS}", user.token)],
                "folded page of 50": [request("GET", f"/channels/{channel}/messages?limit={PAGE_EVENTS}", user.token)],
                "unread": [request("GET", "/channels/unread", user.token)],
                "sync of one log": [request("POST", "/sync", user.token, _positions(user, channel))],
            }

            def ask(turns: Iterator[bytes], count: int) -> None:
                for data in itertools.islice(turns, count):
                    connection.ask(data)

            found: Counts = {}
            for name, different in requests.items():
                progress(name)
                turns = itertools.cycle(different)
                ask(turns, WARM)
                found[name] = (
                    least(lambda name=name, turns=turns: server.count(name, lambda: ask(turns, TURNS))) / TURNS
                )
            progress("delivery")
            found["delivery"] = _delivery(server, channel, user)
    return found, unit


def least(count: Callable[[], int]) -> int:
    """Return the minimum of WINDOWS counts, which excludes garbage collections."""
    return min(count() for _ in range(WINDOWS))


def _delivery(server: CountedServer, channel: str, user: User) -> float:
    """Return the instructions per subscriber of an event that is published to SUBSCRIBERS."""
    head = user.history(channel, before=1 << 53, limit=1)[-1]["sequence"]
    crowd = Crowd(
        server.server.port, SUBSCRIBERS, f"/channels/{channel}/ws?since={head}", user.token, opening={"in_flight": 8}
    )
    try:
        crowd.begin_reading(5.0, RELEASED * WINDOWS)
        found = least(lambda: server.count("delivery", lambda: server.publish(RELEASED)))
        heard = crowd.result()
    finally:
        crowd.close()
    if heard["frames"] != [RELEASED * WINDOWS] or not heard["even"]:
        raise RuntimeError(f"messages were lost: {heard['frames']}")
    return found / RELEASED / SUBSCRIBERS


def _edits(user: User, channel: str) -> list[bytes]:
    """Return edits that each change a text, spread over so many messages that none exceeds the limit of versions."""
    return [
        request("PATCH", f"/channels/{channel}/events/{event_id}", user.token, {"content": text})
        for text in ("y" * 100, "z" * 100)
        for event_id in _newest(user, channel)
    ]


def _reactions(user: User, channel: str) -> list[bytes]:
    """Return requests that add and remove an emoji."""
    return [
        request(
            "POST",
            f"/channels/{channel}/events/{event_id}/reactions",
            user.token,
            {"emoji": "\N{ROCKET}", "action": action},
        )
        for action in ("add", "remove")
        for event_id in _newest(user, channel)
    ]


def _newest(user: User, channel: str) -> list[str]:
    """Return the event IDs of the newest messages."""
    return [line["event"]["event_id"] for line in user.history(channel, before=1 << 53, limit=CHANGED)]


def _positions(user: User, channel: str) -> dict[str, object]:
    """The body of a sync that is at the newest event but one."""
    page = user.get(f"/channels/{channel}/events?limit=1")
    place = {"log": f"channel:{channel}", "epoch": int(page.headers["x-openguild-epoch"])}
    return {"positions": [place | {"sequence": page.json()[0]["sequence"] - 1}]}
