"""Parses invites in the forms that users share."""

from __future__ import annotations

import re

_IN_LINK = re.compile(r"[#?&]invite=([^&#\s]+)")


def invite_code(invite: str) -> str:
    """Return the code of an invite: the end of a link such as `https://chat.example.org/#invite=CODE`, or the whole text."""
    found = _IN_LINK.search(invite)
    return found[1] if found is not None else invite.strip()
