"""Who is writing: for five seconds, or until their message comes."""

from __future__ import annotations

from openguild_proto.client import TypingUsers


def test_a_signal_holds_for_five_seconds_after_the_last_one() -> None:
    typists = TypingUsers()
    typists.signalled("alice", None, 10.0)
    typists.signalled("bob", "hel", 12.0)
    assert typists.writing(14.9) == ["alice", "bob"]
    assert typists.next_end(14.9) == 15.0
    assert typists.writing(15.0) == ["bob"]
    typists.signalled("bob", None, 16.0)
    assert (typists.writing(20.9), typists.writing(21.0), typists.next_end(21.0)) == (["bob"], [], None)


def test_a_message_ends_the_signal_of_its_author_alone() -> None:
    typists = TypingUsers()
    for user in ("alice", "bob"):
        typists.signalled(user, None, 0.0)
    typists.posted("alice")
    typists.posted("carol")
    assert typists.writing(1.0) == ["bob"]


def test_an_empty_preview_withdraws_the_signal() -> None:
    typists = TypingUsers()
    typists.signalled("alice", "hel", 0.0)
    typists.signalled("alice", "", 1.0)
    typists.signalled("bob", "", 1.0)
    assert typists.writing(1.0) == []
