"""What replicas tell each other, across releases."""

from __future__ import annotations

import msgspec

from openguild_proto.records import ControlKind, ControlRecord
from openguild_proto.schemas.payloads import channels_deleted, decode_control, encode_control


def test_a_kind_of_a_newer_release_keeps_its_place_and_its_name() -> None:
    known = ControlRecord(sequence=7, kind=ControlKind.ACCESS_CHANGED, user_id="u")
    future = decode_control(encode_control(known).replace(b"access_changed", b"from_the_future"))
    assert isinstance(future, ControlRecord)
    assert (future.sequence, future.kind.value, future.kind.is_known) == (7, "from_the_future", False)
    assert future.kind not in set(ControlKind)
    assert b'"kind":"from_the_future"' in encode_control(future)
    assert decode_control(encode_control(known)) == known
    assert known.kind.is_known


def test_a_deleted_guild_names_its_channels_since_this_release() -> None:
    record = ControlRecord(sequence=1, kind=ControlKind.GUILD_DELETED, guild_id="g", body='["a","b"]')
    assert channels_deleted(record) == ["a", "b"]
    assert channels_deleted(msgspec.structs.replace(record, body=None)) == []
