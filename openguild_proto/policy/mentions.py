"""Finds the mentions in a text, and decides which of them its author may make (PROTOCOL 6.11)."""

from __future__ import annotations

import re
from collections.abc import Collection

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import MAX_MENTIONED_USERS
from openguild_proto.policy.permissions import RANKS, Permission, allows
from openguild_proto.records import Mentions

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Names in a code span are not mentions. An unterminated span is not a span. Matching is linear.
_MENTION = re.compile(
    rf"```.*?```|`[^`\n]+`|<@(?P<user>{_UUID})>|<@&(?P<role>[a-z]+)>|(?<!\w)@everyone(?!\w)", re.DOTALL
)


def find_mentions(text: str) -> Mentions:
    """Return the users and roles mentioned in the text, in the order of their first mention."""
    if "@" not in text:
        return Mentions()
    users: dict[str, None] = {}
    roles: dict[str, None] = {}
    everyone = False
    for found in _MENTION.finditer(text):
        if found["user"] is not None:
            users[found["user"]] = None
        elif found["role"] in RANKS:
            roles[found["role"]] = None
        elif found[0] == "@everyone":
            everyone = True
    return Mentions(tuple(users), tuple(roles), everyone)


def allowed_mentions(
    named: Mentions, *, role: str, users: Collection[str] | None, roles: Collection[str] | None, everyone: bool | None
) -> Mentions:
    """Return those of `named` that the author wants to and may mention. None: all of that kind.

    Roles and everyone need MENTION_MANY; without it they are plain text. Raises Refusal 400 for more than 50 users.
    """
    of_users = tuple(user for user in named.users if users is None or user in users)
    if len(of_users) > MAX_MENTIONED_USERS:
        problem = FieldProblem("content", f"must not mention more than {MAX_MENTIONED_USERS} users")
        raise Refusal(ErrorCode.VALIDATION, details=(problem,))
    if not allows(role, Permission.MENTION_MANY):
        return Mentions(of_users)
    of_roles = tuple(name for name in named.roles if roles is None or name in roles)
    return Mentions(of_users, of_roles, named.everyone and everyone is not False)


def mentions_reader(mentions: Mentions, role: str | None) -> bool:
    """Return whether the message mentions a reader with this effective role, other than by their id."""
    return mentions.everyone or role in mentions.roles
