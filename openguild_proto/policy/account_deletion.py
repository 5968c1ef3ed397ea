"""Decides whether an account may be deleted now. Both stores call it with the user locked."""

from __future__ import annotations

from enum import Enum

DELETED_USERNAME = "deleted"
"""What other servers learn as the name of a user whose account is deleted, with the end of their memberships."""


class AccountDeletion(Enum):
    """Outcome of deleting an account."""

    DONE = "done"
    STALE = "stale"  # the password was changed since it was verified
    IN_GUILDS = "in_guilds"  # the user is a member of one, and must leave it first


def decide_account_deletion(*, stored_hash: str, checked_hash: str, guilds: int) -> AccountDeletion:
    """Decide on the end of an account. `checked_hash`: what the password was verified with. `guilds`: with the user as a member."""
    if stored_hash != checked_hash:
        return AccountDeletion.STALE
    return AccountDeletion.IN_GUILDS if guilds else AccountDeletion.DONE
