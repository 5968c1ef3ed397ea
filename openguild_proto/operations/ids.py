"""Generates identifiers from entropy."""

from __future__ import annotations

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.operations.context import Context
from openguild_proto.uuids import new_uuid


def new_id(ctx: Context) -> str:
    """Return a UUIDv4 as text."""
    return new_uuid(ctx.entropy)


def new_code(ctx: Context) -> str:
    """Return an invite code: 72 random bits, 12 characters of base64url."""
    return encode_unpadded(ctx.entropy(9))


def new_nonce(ctx: Context) -> str:
    """Return a nonce of 96 random bits, so that two equal texts in one millisecond differ."""
    return encode_unpadded(ctx.entropy(12))
