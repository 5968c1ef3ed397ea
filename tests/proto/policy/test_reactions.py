"""Reactions as they are kept, and as one reader sees them."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.limits import MAX_SHOWN_REACTORS
from openguild_proto.policy.reactions import (
    Crowd,
    EmojiUse,
    add_use,
    clear_emoji,
    has_emoji,
    read_reactions,
    shown_to,
    take_use_back,
    uses_of,
    write_reactions,
)
from openguild_proto.records import NO_REACTIONS
from openguild_proto.schemas.messages import Reaction

USERS = [f"00000000-0000-4000-8000-0000000000{number:02}" for number in range(MAX_SHOWN_REACTORS + 2)]
# Also such that look like members of the JSON around them, and like a user.
EMOJI = ["+1", "\u2764\ufe0f", '"me":false', '","reactors":["', "\\", f'["{USERS[0]}"', USERS[0], f',"{USERS[1]}"']


def kept(**reactors: list[str]) -> str:
    return write_reactions([EmojiUse(emoji, len(users), me=False, reactors=users) for emoji, users in reactors.items()])


def shown(reader_id: str, reactions: str, *crowds: Crowd) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(shown_to(reader_id, reactions, crowds))
    return found


@given(
    uses=st.dictionaries(st.sampled_from(EMOJI), st.lists(st.sampled_from(USERS[:4]), min_size=1, unique=True)),
    reader_id=st.sampled_from(USERS[:5]),
)
def test_a_reader_finds_their_own_reactions_whatever_the_emoji_look_like(
    uses: dict[str, list[str]], reader_id: str
) -> None:
    assert shown(reader_id, kept(**uses)) == [
        {"emoji": emoji, "count": len(users), "me": reader_id in users, "reactors": users}
        for emoji, users in uses.items()
    ]


def test_they_are_what_the_api_describes() -> None:
    reactions = kept(**{"+1": USERS[:2], "heart": USERS[:1]})
    described = msgspec.json.decode(shown_to(USERS[1], reactions, ()), type=list[Reaction])
    assert msgspec.json.encode(described).decode() == shown_to(USERS[1], reactions, ())
    assert write_reactions([]) == NO_REACTIONS


def test_the_first_users_are_kept_and_all_are_counted() -> None:
    reactions, is_crowded = NO_REACTIONS, False
    for user_id in USERS:
        reactions, is_crowded = add_use(reactions, "+1", user_id, is_crowded=is_crowded)
    (use,) = read_reactions(reactions)
    assert (use.count, use.reactors, is_crowded) == (len(USERS), USERS[:MAX_SHOWN_REACTORS], True)
    for user_id in USERS[MAX_SHOWN_REACTORS:]:
        reactions, is_crowded = take_use_back(reactions, "+1", user_id, is_crowded=is_crowded)
    assert not is_crowded
    reactions, is_crowded = take_use_back(reactions, "+1", USERS[0], is_crowded=is_crowded)
    (use,) = read_reactions(reactions)
    assert (use.count, use.reactors) == (MAX_SHOWN_REACTORS - 1, USERS[1:MAX_SHOWN_REACTORS])


@given(turns=st.lists(st.tuples(st.sampled_from(EMOJI), st.sampled_from([*USERS, ""])), max_size=60))
def test_uses_are_counted_whatever_the_emoji_look_like(turns: list[tuple[str, str]]) -> None:
    """Each turn is a user who uses an emoji, or takes it back if they have used it; without a user it is cleared."""
    users: dict[str, list[str]] = {}
    named: dict[str, list[str]] = {}
    reactions, is_crowded = NO_REACTIONS, False
    for emoji, user_id in turns:
        adds = user_id not in users.get(emoji, ())
        if not user_id:
            reactions, is_crowded = clear_emoji(reactions, emoji)
            users.pop(emoji, None)
            named.pop(emoji, None)
        elif adds:
            reactions, is_crowded = add_use(reactions, emoji, user_id, is_crowded=is_crowded)
            users.setdefault(emoji, []).append(user_id)
            if len(named.setdefault(emoji, [])) < MAX_SHOWN_REACTORS:
                named[emoji].append(user_id)
        else:
            reactions, is_crowded = take_use_back(reactions, emoji, user_id, is_crowded=is_crowded)
            users[emoji].remove(user_id)
            named[emoji] = [name for name in named[emoji] if name != user_id]
            if not users[emoji]:
                del users[emoji], named[emoji]
        uses = [EmojiUse(emoji, len(users[emoji]), me=False, reactors=named[emoji]) for emoji in users]
        assert reactions == write_reactions(uses)
        assert is_crowded is any(use.count > len(use.reactors) for use in uses)
        assert uses_of(reactions) == len(uses)
        assert [has_emoji(reactions, emoji) for emoji in EMOJI] == [emoji in users for emoji in EMOJI]


def test_of_a_crowd_the_store_tells_what_is_not_kept() -> None:
    reactions = write_reactions([
        EmojiUse("+1", 30, me=False, reactors=USERS[:MAX_SHOWN_REACTORS]),
        EmojiUse("heart", 12, me=False, reactors=[]),
        EmojiUse("eyes", 1, me=False, reactors=USERS[:1]),
    ])  # fmt: skip
    crowds = (Crowd("+1", True, None), Crowd("heart", False, tuple(USERS[2:5])))
    assert shown("somebody", reactions, *crowds) == [
        {"emoji": "+1", "count": 30, "me": True, "reactors": USERS[:MAX_SHOWN_REACTORS]},
        {"emoji": "heart", "count": 12, "me": False, "reactors": USERS[2:5]},
        {"emoji": "eyes", "count": 1, "me": False, "reactors": USERS[:1]},
    ]
