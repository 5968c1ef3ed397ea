"""Reactions of a message, stored as the JSON that a page of messages shows to a user who has not reacted.

So most pages show it unchanged. It is changed if the reader has reacted, or if more users have reacted than are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from openguild_proto.limits import MAX_SHOWN_REACTORS
from openguild_proto.records import NO_REACTIONS


class EmojiUse(msgspec.Struct, omit_defaults=True, gc=False):
    """One emoji on a message, as `Reaction` in the API. `reactors`: the first users, at most MAX_SHOWN_REACTORS."""

    emoji: str
    count: int
    me: bool
    reactors: list[str] = []


class Crowd(NamedTuple):
    """The rest of a crowded emoji: the users that the JSON does not hold."""

    emoji: str
    has_reacted: bool  # the reader
    reactors: tuple[str, ...] | None  # in place of the stored ones, if those are fewer than may be shown


_MINE, _NOT_MINE = '"me":true', '"me":false'
_decode = msgspec.json.Decoder(list[EmojiUse]).decode
_encode = msgspec.json.Encoder().encode


def read_reactions(reactions: str) -> list[EmojiUse]:
    """Return the uses of emoji, ordered by first use."""
    return _decode(reactions)


def write_reactions(uses: Sequence[EmojiUse]) -> str:
    """Return the JSON to store."""
    return _encode(uses).decode()


def uses_of(reactions: str) -> int:
    """Return the number of emoji."""
    return reactions.count(_NOT_MINE)


def has_emoji(reactions: str, emoji: str) -> bool:
    """Return whether somebody has used this emoji."""
    return _beginning(emoji) in reactions


def add_use(reactions: str, emoji: str, user_id: str, *, is_crowded: bool) -> tuple[str, bool]:
    """Add a user's use of the emoji. Returns the new JSON, and whether it is crowded: whether more users have used one of the
    emoji than are stored.
    """
    if has_emoji(reactions, emoji):
        return _counted(reactions, emoji, user_id, adds=True)
    comma = "," if len(reactions) > len(NO_REACTIONS) else ""
    return f"{reactions[:-1]}{comma}{_alone(emoji, user_id)}]", is_crowded


def take_use_back(reactions: str, emoji: str, user_id: str, *, is_crowded: bool) -> tuple[str, bool]:
    """Remove a user's use of the emoji. Returns the same as `add_use`."""
    before, found, behind = reactions.partition(_alone(emoji, user_id))
    if not found:
        return _counted(reactions, emoji, user_id, adds=False)
    if behind.startswith(","):
        return before + behind[1:], is_crowded
    return before.removesuffix(",") + behind, is_crowded


def clear_emoji(reactions: str, emoji: str) -> tuple[str, bool]:
    """Remove the emoji for all users. Returns the same as `add_use`."""
    return _kept(use for use in read_reactions(reactions) if use.emoji != emoji)


def _counted(reactions: str, emoji: str, user_id: str, *, adds: bool) -> tuple[str, bool]:
    uses = read_reactions(reactions)
    for use in uses:
        if use.emoji == emoji:
            use.count += 1 if adds else -1
            if not adds:
                use.reactors = [kept for kept in use.reactors if kept != user_id]
            elif len(use.reactors) < MAX_SHOWN_REACTORS:
                use.reactors = [*use.reactors, user_id]
    return _kept(use for use in uses if use.count > 0)


def _kept(uses: Iterable[EmojiUse]) -> tuple[str, bool]:
    left = list(uses)
    return write_reactions(left), any(use.count > len(use.reactors) for use in left)


def _beginning(emoji: str) -> str:
    """Return the start of an emoji's use in JSON. Quotes within an emoji are escaped, so no emoji can imitate it."""
    return f'{{"emoji":{_encode(emoji).decode()},'


def _alone(emoji: str, user_id: str) -> str:
    """Return the JSON of an emoji that only this user has used."""
    return f'{_beginning(emoji)}"count":1,{_NOT_MINE},"reactors":["{user_id}"]}}'


def shown_to(reader_id: str, reactions: str, crowds: Sequence[Crowd]) -> str:
    """Return the reactions as this reader sees them. `crowds`: one for each emoji that more users have used than are stored."""
    if not crowds:
        return _marked(reader_id, reactions) if reader_id in reactions else reactions
    crowd_of = {crowd.emoji: crowd for crowd in crowds}
    uses = read_reactions(reactions)
    for use in uses:
        crowd = crowd_of.get(use.emoji)
        use.me = reader_id in use.reactors or (crowd is not None and crowd.has_reacted)
        if crowd is not None and crowd.reactors is not None:
            use.reactors = list(crowd.reactors)
    return write_reactions(uses)


def _marked(reader_id: str, reactions: str) -> str:
    """Mark the emoji that the reader has used. Quotes within an emoji are escaped, so no emoji can imitate a key or a user."""
    first, later = f'["{reader_id}"', f',"{reader_id}"'
    marked, *rest = reactions.split(_NOT_MINE)
    for part in rest:  # up to the next mark
        marked += (_MINE if first in part or later in part else _NOT_MINE) + part
    return marked
