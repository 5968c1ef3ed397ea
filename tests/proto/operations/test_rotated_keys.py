"""Replicas of an owner get its new key one after the other: a mirror takes what each of them has signed (PROTOCOL 16.3.6)."""

from __future__ import annotations

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import RecordOwnKey
from tests.support.homeservers import Homeserver
from tests.support.moving_guild import NORTH, SOUTH, MovingGuild


def rotate(server: Homeserver, key_id: str) -> None:
    """Sign events with a new key. Requests are those of a replica that has the former one."""
    signer = EventSigner(server.name, key_id, SigningKey(key_id.encode().ljust(32, b"n")))
    server.service.retired_signers = (server.signer,)
    server.service.signer = signer
    not_after = server.wall_ms + 10**12
    server.perform(RecordOwnKey(key_id=key_id, public_key=signer.public, now_ms=server.wall_ms, not_after=not_after))


def keys_read(guild: MovingGuild) -> int:
    return [asked for sender, _, asked in guild.federation.carried if sender == SOUTH].count("GET /federation/v1/keys")


def test_events_of_a_key_that_is_not_known_yet_are_taken() -> None:
    guild = MovingGuild()
    guild.pass_time(61)
    rotate(guild.north, "2")
    guild.post(guild.north, guild.alice, "signed with the new key")
    assert [line.status for line in guild.north.deliver(SOUTH).logs] == ["ok"]
    assert b"signed with the new key" in guild.south.told[-1].wire


def test_the_keys_are_read_once_a_minute_for_events_that_nobody_has_signed() -> None:
    guild = MovingGuild()
    guild.pass_time(61)
    guild.north.service.signer = EventSigner(NORTH, "9", SigningKey(b"x" * 32))  # which its keys do not have
    read = keys_read(guild)
    guild.post(guild.north, guild.alice, "forged")
    for _ in range(3):
        assert [line.status for line in guild.north.deliver(SOUTH).logs] == ["refused"]
    assert keys_read(guild) == read + 1
    assert not any(b"forged" in event.wire for event in guild.south.told)
