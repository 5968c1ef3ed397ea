"""Decides whether an account may be deleted now. Both stores call it with the user locked."""

from __future__ import annotations

from enum import Enum

DELETED_USERNAME = "deleted"
"""The name that other servers receive for a deleted account, when its memberships end."""


class AccountDeletion(Enum):
    """Outcome of deleting an account."""

    DONE = "done"
    STALE = "stale"  # the password was changed since it was verified
    IN_GUILDS = "in_guilds"  # the user is a member of guilds, and must leave them first


def decide_account_deletion(*, stored_hash: str, checked_hash: str, guilds: int) -> AccountDeletion:
    """Decide on deleting an account. `checked_hash`: the hash that the password was verified with. `guilds`: the user's guilds."""
    if stored_hash != checked_hash:
        return AccountDeletion.STALE
    return AccountDeletion.IN_GUILDS if guilds else AccountDeletion.DONE
