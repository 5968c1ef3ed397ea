"""Changes MessagePack that msgspec cannot parse so that it can: only to find the `ref` of a refused message."""

from __future__ import annotations

from openguild_proto.errors import LocalProtocolError

_NIL = b"\xc0"
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8} | {
    0xD4 + power: 1 + 2**power
    for power in range(5)  # ext: a type and 2**power bytes
}
_COUNTED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTS = range(0xC7, 0xCA)
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_NEVER_USED = 0xC1


def without_depth(data: bytes) -> bytes:
    """Return a map in which each non-empty array and map is replaced with nil. Invalid MessagePack stays invalid.

    One pass, without recursion: each step consumes at least one byte.
    """
    parts: list[bytes] = []
    kept = 0
    try:
        at, members = _head(data, 0)
        for _ in range(members):
            begin = at
            at, waiting = _head(data, at)
            if waiting:
                while waiting:
                    at, within = _head(data, at)
                    waiting += within - 1
                parts += data[kept:begin], _NIL
                kept = at
    except (IndexError, LocalProtocolError):
        return data
    return b"".join((*parts, data[kept:]))


def _head(data: bytes, at: int) -> tuple[int, int]:
    """Return the offset where a value ends, or where the first member of an array or map begins, and the number of members.

    Raises IndexError, LocalProtocolError.
    """
    kind = data[at]
    at += 1
    if kind < 0x80 or kind >= 0xE0:
        return at, 0
    if kind < 0x90:
        return at, 2 * (kind & 15)
    if kind < 0xA0:
        return at, kind & 15
    if kind < 0xC0:
        return at + (kind & 31), 0
    if kind in _FIXED:
        return at + _FIXED[kind], 0
    if kind in _COUNTED:
        begin = at + _COUNTED[kind]
        return begin + int.from_bytes(data[at:begin]) + (kind in _EXTS), 0
    if kind in _ARRAYS:
        begin = at + _ARRAYS[kind]
        return begin, int.from_bytes(data[at:begin])
    if kind in _MAPS:
        begin = at + _MAPS[kind]
        return begin, 2 * int.from_bytes(data[at:begin])
    if kind == _NEVER_USED:
        raise LocalProtocolError("no MessagePack")
    return at, 0
