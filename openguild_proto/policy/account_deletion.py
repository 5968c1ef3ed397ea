"""Decides whether an account may be deleted now. Both stores call it with the user locked."""

from __future__ import annotations

from enum import Enum

DELETED_USERNAME = "deleted"
"""The name of a deleted account that other servers get with the end of its memberships."""


class AccountDeletion(Enum):
    """The outcome of deleting an account."""

    DONE = "done"
    STALE = "stale"  # the password was changed since it was verified
    IN_GUILDS = "in_guilds"  # the user must first leave their guilds


def decide_account_deletion(*, stored_hash: str, checked_hash: str, guilds: int) -> AccountDeletion:
    """Decide whether to delete an account.

    `checked_hash`: the hash against which the password was verified. `guilds`: the number of the user's guilds.
    """
    if stored_hash != checked_hash:
        return AccountDeletion.STALE
    return AccountDeletion.IN_GUILDS if guilds else AccountDeletion.DONE
