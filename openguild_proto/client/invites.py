"""Invite links and codes."""

from __future__ import annotations

import re

_IN_LINK = re.compile(r"[#?&]invite=([^&#\s]+)")


def invite_code(invite: str) -> str:
    """Return the code of an invite, given as a link such as `https://chat.example.org/#invite=CODE` or as the code itself."""
    found = _IN_LINK.search(invite)
    return found[1] if found is not None else invite.strip()
