"""What a gateway socket is given while the rights of its user are read again."""

from __future__ import annotations

import pytest

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.guilds import RemoveMember, SetMemberRole
from openguild_proto.effects.logs import FindLogs
from openguild_proto.effects.replica import ReadControls
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.hints import TypingHint
from openguild_proto.limits import TAIL_CHECK_SECS
from openguild_proto.records import Author
from tests.proto.replica.test_gateway import Scene, scene
from tests.support.deeds import NOW

__all__ = ["scene"]


def test_nothing_that_came_behind_a_removal_is_written(scene: Scene) -> None:
    """A replica that was held up finds the removal and many posts behind it together."""
    client = scene.client()
    client.follow(*scene.logs)
    scene.driven.hold(FindLogs)
    removal = RemoveMember(author=Author(scene.alice), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW)
    scene.driven.change(removal)
    scene.driven.commit(scene.channel)
    client.attend()
    scene.driven.let_pass(FindLogs)
    scene.driven.commit(scene.channel)
    client.attend()
    assert client.events(f"channel:{scene.channel}") == []
    assert {frame["code"] for frame in client.of("gone")} == {"access_lost"}


@pytest.mark.parametrize("failure", [StorageUnavailable(), ValueError("ours")], ids=["outage", "defect"])
def test_nothing_is_written_to_one_whose_rights_cannot_be_read(scene: Scene, failure: Exception) -> None:
    """PROTOCOL 8.8.4: whatever it is that fails."""
    client = scene.client()
    client.follow(*scene.logs)
    scene.driven.failing[FindLogs] = failure
    scene.driven.change(RemoveMember(author=Author(scene.alice), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW))
    scene.driven.commit(scene.channel)
    client.attend()
    assert client.events(f"channel:{scene.channel}") == []
    assert {(frame["log"], frame["code"]) for frame in client.of("gone")} == {
        (log, "unavailable") for log in scene.logs
    }
    assert len(scene.driven.defects) == isinstance(failure, ValueError)


def test_a_defect_in_the_check_of_one_socket_spares_no_other(scene: Scene) -> None:
    """Records may be lost: everyone is checked again."""
    clients = [scene.client(user, session="lost") for user in (scene.alice, scene.bob)]
    held = scene.driven.hold(FindSession)
    scene.driven.run(scene.driven.replica.controls.begin_anew())
    held.fail(ValueError("ours"))
    scene.driven.let_pass(FindSession)
    for client in clients:
        client.attend()
    assert [client.closed for client in clients] == [GatewayClose.TRY_LATER, GatewayClose.SESSION_ENDED]
    assert len(scene.driven.defects) == 1


def test_nothing_typed_behind_a_removal_is_shown(scene: Scene) -> None:
    """Neither while the right is read again nor afterwards; before it was."""
    driven, log, carol = scene.driven, f"channel:{scene.channel}", scene.driven.elsewhere.user()
    client, other = scene.client(), scene.client(scene.alice)
    for reader in (client, other):
        reader.follow(log)

    def typed(preview: str) -> None:
        driven.replica.announce(TypingHint(scene.channel, carol, preview), now=driven.now)
        for reader in (client, other):
            reader.attend()

    typed("hello")
    driven.hold(FindLogs)
    driven.change(RemoveMember(author=Author(scene.alice), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW))
    driven.sleep(60)
    typed("a secret")
    driven.let_pass(FindLogs)
    client.attend()
    assert [frame["data"]["preview"] for frame in other.of("eph")] == ["hello", "a secret"]
    assert [frame["data"]["preview"] for frame in client.of("eph")] == ["hello"]


def test_events_wait_until_a_changed_right_is_known(scene: Scene) -> None:
    """Twice changed: until both are. Answers do not wait."""
    client, other = scene.client(), scene.client(scene.alice)
    log = f"channel:{scene.channel}"
    client.follow(log)
    other.follow(log)
    held = scene.driven.hold(FindLogs)
    for role in ("moderator", "member"):
        grant = SetMemberRole(
            author=Author(scene.alice), guild_id=scene.guild, user_id=scene.bob, role=role, now_ms=NOW
        )
        scene.driven.change(grant)
    scene.driven.commit(scene.channel)
    client.attend()
    assert len(other.events(log)) == 1
    client.say(type="unknown", ref=7)
    assert client.frames[-1]["ref"] == 7
    held.release(1)
    client.attend()
    assert client.events(log) == []
    held.release()
    client.attend()
    scene.driven.commit(scene.channel)
    client.attend()
    assert client.events(log) == [1, 2]


def test_a_replica_without_a_wire_finds_a_removal_before_what_was_said_behind_it(scene: Scene) -> None:
    """Whenever it comes: a log is looked at with every other check, and with others than another log."""
    driven, log = scene.driven, f"channel:{scene.channel}"
    driven.replica.follow(now=driven.now)
    driven.sleep(0.6 * TAIL_CHECK_SECS)
    client, other = scene.client(), scene.client(scene.alice)
    for reader in (client, other):
        reader.follow(log)
    for tenth in range(20):
        driven.sleep(tenth / 10)
        removal = RemoveMember(author=Author(scene.alice), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW)
        driven.elsewhere.perform(removal)
        said = driven.elsewhere.append(scene.channel).sequence
        while said not in other.events(log):
            driven.sleep(0.1)
            other.attend()
        assert said not in client.events(log)
        driven.sleep(TAIL_CHECK_SECS)
        client.attend()
        assert client.frames[-1]["code"] == "access_lost"
        driven.elsewhere.perform(GrantGuildRole(guild_id=scene.guild, user_id=scene.bob, role="member", now_ms=NOW))
        driven.sleep(2 * TAIL_CHECK_SECS)
        client.follow(log)


def test_what_a_check_finds_waits_for_the_control_log(scene: Scene) -> None:
    driven, log = scene.driven, f"channel:{scene.channel}"
    client, other = scene.client(), scene.client(scene.alice)
    for reader in (client, other):
        reader.follow(log)
    driven.replica.follow(now=driven.now)
    driven.hold(ReadControls)
    removal = RemoveMember(author=Author(scene.alice), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW)
    driven.elsewhere.perform(removal)
    driven.elsewhere.append(scene.channel)
    driven.sleep(3 * TAIL_CHECK_SECS)
    other.attend()
    assert other.events(log) == client.events(log) == []
    driven.let_pass(ReadControls)
    driven.sleep(2 * TAIL_CHECK_SECS)
    other.attend()
    assert (other.events(log), client.events(log)) == ([1], [])
