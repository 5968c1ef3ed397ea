"""Guilds with very many channels."""

from __future__ import annotations

from openguild_proto.effects.guilds import DeleteGuild
from openguild_proto.limits import MAX_WAITING_WORKS
from openguild_proto.records import Author
from tests.proto.replica.test_gateway import Scene


def test_a_guild_with_many_channels_ends_in_turns() -> None:
    """As one work: a queue of many would be done at once, whatever it takes."""
    scene = Scene()
    elsewhere = scene.driven.elsewhere
    channels = [elsewhere.channel(scene.alice, scene.guild) for _ in range(MAX_WAITING_WORKS + 1)]
    client = scene.client()
    client.follow(*(f"channel:{channel}" for channel in channels))
    for record in elsewhere.records:
        scene.driven.deliver_control(record)
    elsewhere.perform(DeleteGuild(author=Author(scene.alice), guild_id=scene.guild))
    scene.driven.replica.stored(elsewhere.records[-1], now=scene.driven.now)
    assert not scene.driven.replica.is_pressed
    scene.driven.perform_actions()
    client.attend()
    assert {frame["log"] for frame in client.of("gone")} == {f"channel:{channel}" for channel in channels}
