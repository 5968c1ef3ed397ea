"""The acknowledged posts, the events that each server's readers got, and the final logs of all servers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import anyio

from openguild_runtime.client import Client, OutcomeUnknown


class Books:
    """Counts the errors in `outcome`."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome
        self._acknowledged: dict[tuple[str, int], str] = {}
        self._ids: set[str] = set()
        self._followed: dict[str, dict[str, int]] = defaultdict(dict)  # channel -> server -> sequence

    def acknowledged(self, channel: str, sequence: int, event_id: str, nonce: str) -> None:
        """Record an answered post."""
        del nonce
        if self._acknowledged.setdefault((channel, sequence), event_id) != event_id or event_id in self._ids:
            self._outcome.repeated += 1
        self._ids.add(event_id)

    async def follow(self, server: str, client: Client, channel: str) -> None:
        """Read a channel's stream from its first event at this server, across restarts."""
        last: int | None = None
        self._followed[channel][server] = 0
        while True:
            try:
                async with client.subscribe(channel, since=last) as stream:
                    async for event in stream:
                        if last is not None and event.sequence != last + 1:
                            self._outcome.unordered += event.sequence > last + 1
                            self._outcome.repeated += event.sequence <= last
                        last = event.sequence
                        self._followed[channel][server] = last
            except OutcomeUnknown:
                await anyio.sleep(0.5)

    def has_followed(self, channel: str, head: int) -> bool:
        """Return whether all readers have reached the head."""
        return all(sequence == head for sequence in self._followed[channel].values())

    def compare(self, channel: str, logs: list[dict[int, str]]) -> None:
        """Compare the logs that the servers have of one channel, each as sequence -> event id."""
        longest = max(logs, key=len)
        for log in logs:
            self._outcome.different += sum(longest[sequence] != event_id for sequence, event_id in log.items())
        wanted = {sequence: event_id for (of, sequence), event_id in self._acknowledged.items() if of == channel}
        self._outcome.lost += sum(longest.get(sequence) != event_id for sequence, event_id in wanted.items())
        self._outcome.repeated += len(longest) - len(set(longest.values()))
        if any(set(log) != set(longest) for log in logs):
            self._outcome.different += 1


async def read_log(client: Client, channel: str) -> dict[int, str]:
    """Read a whole log by pages. Return sequence -> event id."""
    return {event.sequence: str(event.event["event_id"]) async for event in client.history(channel)}
