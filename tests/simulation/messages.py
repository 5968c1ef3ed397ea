"""Changes of messages by clients, and the check that all views of the messages agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from openguild_proto.client.view import ChannelView
from openguild_proto.effects.messages import FoundMessage, MessagePage, ReadMessages
from openguild_proto.operations.context import Settings
from openguild_proto.policy.reactions import read_reactions
from openguild_proto.records import NO_REACTIONS
from openguild_proto.schemas.folded_messages import folded_messages
from tests.simulation.client import Client
from tests.simulation.clock import Activity

if TYPE_CHECKING:
    from tests.simulation.scenario import Run
    from tests.simulation.subscriber import Subscriber

EMOJI = ("\N{THUMBS UP SIGN}", "\N{HEAVY BLACK HEART}\ufe0f", "好")
FINE = {200, 404, 409}  # the channel may be gone, or the message redacted


class Messages:
    """`posted`: channel -> author and event id of the acknowledged posts."""

    def __init__(self, run: Run) -> None:
        self.posted: dict[str, list[tuple[str, str]]] = {}
        self.changes = 0
        self._run = run

    def some_change(self, client: Client, channel_id: str) -> Activity[None]:
        """Let the client change a message of this channel, or one of its own."""
        posted, rng = self.posted.get(channel_id, []), self._run.rng
        own = [event_id for name, event_id in posted if name == client.name]
        if not posted:
            return
        events = f"/channels/{channel_id}/events"
        nonce = f"{client.name}{rng.getrandbits(64)}"
        kind = rng.random()
        if kind < 0.4:
            body = {"emoji": rng.choice(EMOJI), "action": rng.choice(("add", "add", "remove")), "nonce": nonce}
            yield from self._ask(client, "POST", f"{events}/{rng.choice(posted)[1]}/reactions", body)
        elif kind < 0.5:
            event_id = rng.choice(posted)[1]
            pin, reactions = f"/channels/{channel_id}/pins/{event_id}", f"{events}/{event_id}/reactions"
            method, path = rng.choice((("PUT", pin), ("DELETE", pin), ("DELETE", reactions)))
            yield from self._ask(self._run.client("owner", client.place), method, path)
        elif own and kind < 0.8:
            body = {"content": f"edited {nonce}", "nonce": nonce}
            yield from self._ask(client, "PATCH", f"{events}/{rng.choice(own)}", body)
        elif own:
            yield from self._ask(client, "DELETE", f"{events}/{rng.choice(own)}")

    def _ask(self, client: Client, method: str, path: str, body: Any = None) -> Activity[None]:
        answer = yield from client.ask(method, path, body)
        self.changes += answer.status == 200
        if answer.status not in FINE and not self._run.cluster.database.restores:
            self._run.violation(f"{client.name} cannot {method} {path}: {answer.status} {answer.body.decode()}")


def differing_view(run: Run, subscriber: Subscriber) -> str | None:
    """Return how the folded events of the subscriber differ from the server's messages; None if they do not."""
    view = ChannelView()
    for place, payload in enumerate(subscriber.received):
        view.apply(place + 1, bytes(msgspec.json.decode(payload, type=_Frame).event))
    question = ReadMessages(channel_id=subscriber.channel_id, reader_id=subscriber.user_id, limit=100_000)
    page = run.cluster.database.tables.perform(question)
    shown = [] if page is None else [_shown(subscriber, message) for message in page.messages]
    seen = [
        (
            message.event_id, message.text, message.versions, message.redacted_by, message.pinned,
            {emoji: (len(users), subscriber.user_id in users) for emoji, users in message.reactions.items()},
        )
        for message in view.messages.values()
    ]  # fmt: skip
    if seen == shown:
        return None
    return f"{subscriber.client.name}: its view of {subscriber.channel_id} is not the server's"


class _Frame(msgspec.Struct):
    event: msgspec.Raw


def _shown(subscriber: Subscriber, found: FoundMessage) -> tuple[Any, ...]:
    (message,) = folded_messages(
        subscriber.channel_id, MessagePage((found,), {}, 0), subscriber.user_id, Settings().server_name
    )
    shown = bytes(message.reactions).decode() if message.reactions else NO_REACTIONS
    reactions = {use.emoji: (use.count, use.me) for use in read_reactions(shown)}
    return (
        message.event_id, message.content, message.versions, message.redacted_by, message.pinned_at is not None, reactions,
    )  # fmt: skip
