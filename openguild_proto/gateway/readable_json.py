"""Changes valid JSON text that msgspec cannot parse so that it can: only to find the `ref` of a refused message.

Both functions take one pass over the text. Invalid JSON stays invalid.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
# Possessive, and an unterminated string extends to the end, so matching is linear.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def without_lone_surrogates(data: bytes) -> bytes:
    """Return JSON text in which each escape of a lone surrogate is replaced with U+FFFD (RFC 8259 8.2)."""
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], data)


def without_depth(data: bytes) -> bytes:
    """Return JSON text in which each array and object inside the outermost one is replaced with null."""
    parts: list[bytes] = []
    depth = kept = 0
    for found in _STRUCTURE.finditer(data):
        token = found[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth == 2:
                parts += data[kept : found.start()], b"null"
                kept = len(data)
        elif token in (b"]", b"}"):
            if depth == 2:
                kept = found.end()
            depth -= 1
    return b"".join((*parts, data[kept:]))
