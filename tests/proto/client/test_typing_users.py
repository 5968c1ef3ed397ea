"""Who is writing: for five seconds, or until their message comes."""

from __future__ import annotations

from openguild_proto.client import TypingUsers


def test_a_signal_holds_for_five_seconds_after_the_last_one() -> None:
    typing_users = TypingUsers()
    typing_users.signalled("alice", None, 10.0)
    typing_users.signalled("bob", "hel", 12.0)
    assert typing_users.writing(14.9) == ["alice", "bob"]
    assert typing_users.next_end(14.9) == 15.0
    assert typing_users.writing(15.0) == ["bob"]
    typing_users.signalled("bob", None, 16.0)
    assert (typing_users.writing(20.9), typing_users.writing(21.0), typing_users.next_end(21.0)) == (["bob"], [], None)


def test_a_message_ends_the_signal_of_its_author_alone() -> None:
    typing_users = TypingUsers()
    for user in ("alice", "bob"):
        typing_users.signalled(user, None, 0.0)
    typing_users.posted("alice")
    typing_users.posted("carol")
    assert typing_users.writing(1.0) == ["bob"]


def test_an_empty_preview_withdraws_the_signal() -> None:
    typing_users = TypingUsers()
    typing_users.signalled("alice", "hel", 0.0)
    typing_users.signalled("alice", "", 1.0)
    typing_users.signalled("bob", "", 1.0)
    assert typing_users.writing(1.0) == []
