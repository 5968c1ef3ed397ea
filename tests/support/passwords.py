"""The password of users that tests add to a store, and changing it."""

from __future__ import annotations

from openguild_proto.effects.accounts import ChangePassword
from openguild_proto.records import Author

PASSWORD_HASH = "$argon2id$"  # the hash of every user that `add_user` adds


def change_password(
    author: Author, now_ms: int, password_hash: str = "new", checked_hash: str = PASSWORD_HASH
) -> ChangePassword:
    return ChangePassword(author=author, checked_hash=checked_hash, password_hash=password_hash, now_ms=now_ms)
