"""The writes of the clients: posts at a fixed rate, and changes of messages. Each is retried until it is answered."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import anyio
import msgspec

from openguild_runtime.client import ApiError, Client, OutcomeUnknown
from tests.scenarios.chaos.plan import Outcome, Plan

EMOJI = ("\N{THUMBS UP SIGN}", "\N{HEAVY BLACK HEART}\ufe0f", "好")
NEWEST = 20  # the newest messages are changed most often, while they are being delivered
SETTLED = (404, 409)  # the message was redacted meanwhile, or the channel has no room for another pin
RETRIED = (429, 502, 503, 504)
RETRY_SECS = 0.3


class _Changed(msgspec.Struct):
    sequence: int | None = None
    event_id: str | None = None


class Load:
    """The writes of all posters. `acknowledged`: (channel, sequence) -> event id; `redacted`: event id -> time of the answer."""

    def __init__(self, plan: Plan, outcome: Outcome, rng: Random) -> None:
        self.plan = plan
        self.outcome = outcome
        self.channels: list[str] = []
        self.acknowledged: dict[tuple[str, int], str] = {}
        self.redacted: dict[str, float] = {}
        self.next_post = 0
        self._rng = rng
        self._posted: list[tuple[str, str, int]] = []  # channel, event id, author
        self._changes = 0

    @property
    def is_over(self) -> bool:
        """Whether the last post has begun."""
        return self.next_post >= self.plan.posts

    async def post_on(self, client: Client, author: int, owner: Client) -> None:
        """Post until the plan's posts are used up, at its rate over all posters, and change messages now and then.

        `author`: the number of the client's account; `owner`: a client that may pin.
        """
        begun = time.monotonic()
        while not self.is_over:
            mine, self.next_post = self.next_post, self.next_post + 1
            await anyio.sleep(max(0.0, begun + mine / self.plan.posts_per_sec - time.monotonic()))
            channel, text = self._rng.choice(self.channels), f"post {mine} " + "x" * self._rng.choice((10, 200))
            sent = time.monotonic()
            posted = await client.post(channel, text)
            self.outcome.longest_post_secs = round(max(self.outcome.longest_post_secs, time.monotonic() - sent), 2)
            self.outcome.posts += 1
            self._acknowledge(channel, posted.sequence, posted.event_id)
            self._posted.append((channel, posted.event_id, author))
            if self._rng.random() < self.plan.change_share:
                await self._change_some(client, author, owner)

    def _acknowledge(self, channel: str, sequence: int, event_id: str) -> None:
        if self.acknowledged.setdefault((channel, sequence), event_id) != event_id:
            self.outcome.repeated += 1

    async def _change_some(self, client: Client, author: int, owner: Client) -> None:
        rng = self._rng
        kind = rng.random()
        among = self._posted[-NEWEST:] if rng.random() < 0.7 else self._posted
        if kind >= 0.5:  # a change that only the author may make
            among = [posted for posted in among if posted[2] == author] or among
        channel, event_id, wrote = rng.choice(among)
        self._changes += 1
        event, nonce = f"/channels/{channel}/events/{event_id}", f"change-{self._changes}"
        if kind < 0.4 or (kind >= 0.5 and wrote != author):
            body = {"emoji": rng.choice(EMOJI), "action": rng.choice(("add", "add", "remove")), "nonce": nonce}
            await self._ask(client, channel, "POST", f"{event}/reactions", body)
        elif kind < 0.5:
            pin, reactions = f"/channels/{channel}/pins/{event_id}", f"{event}/reactions"
            method, path = rng.choice((("PUT", pin), ("DELETE", pin), ("DELETE", reactions)))
            await self._ask(owner, channel, method, path)
        elif kind < 0.75:
            await self._ask(client, channel, "PATCH", event, {"content": f"edited: {nonce}", "nonce": nonce})
        elif await self._ask(client, channel, "DELETE", event):
            self.redacted.setdefault(event_id, time.monotonic())

    async def _ask(self, client: Client, channel: str, method: str, path: str, body: Any = None) -> bool:
        """Retry a change until it is answered. Return whether it was made."""
        while True:
            try:
                answer = await client.request(method, path, body)
            except OutcomeUnknown:
                await anyio.sleep(RETRY_SECS)
            except ApiError as refused:
                if refused.status in SETTLED:
                    return False
                if refused.status not in RETRIED:
                    raise
                await anyio.sleep(RETRY_SECS)
            else:
                changed = msgspec.convert(answer, _Changed)
                self.outcome.changes += 1
                if changed.sequence is not None and changed.event_id is not None:
                    self._acknowledge(channel, changed.sequence, changed.event_id)
                return True
