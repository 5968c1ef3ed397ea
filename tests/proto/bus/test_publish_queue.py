"""The messages that wait to be published: in order, and bounded."""

from __future__ import annotations

from openguild_proto.bus.publish_queue import Message, PublishQueue
from openguild_proto.limits import MAX_PUBLISH_BYTES, MAX_PUBLISH_MESSAGES


def message(subject: str, nbytes: int = 1) -> Message:
    return Message(subject, bytes(nbytes), {})


def test_messages_leave_in_order() -> None:
    queue = PublishQueue()
    for subject in "abc":
        assert queue.put(message(subject))
    assert [taken.subject for taken in iter(queue.take, None)] == ["a", "b", "c"]


def test_a_full_queue_takes_no_more_messages() -> None:
    queue = PublishQueue()
    assert all(queue.put(message("a")) for _ in range(MAX_PUBLISH_MESSAGES))
    assert not queue.put(message("b"))
    queue.take()
    assert queue.put(message("b"))


def test_bytes_are_bounded_and_given_back() -> None:
    queue = PublishQueue()
    assert queue.put(message("a", MAX_PUBLISH_BYTES))
    assert not queue.put(message("b"))
    assert queue.clear() == 1
    assert queue.take() is None
    assert queue.put(message("b", MAX_PUBLISH_BYTES))


def test_headers_count_in_the_bound() -> None:
    queue = PublishQueue()
    headers = {"X-Request-Id": "r" * 100}
    assert queue.put(Message("a", bytes(MAX_PUBLISH_BYTES - 116), headers))
    assert not queue.put(Message("b", b"x", {}))
    assert queue.take() is not None
    assert queue.put(message("b", MAX_PUBLISH_BYTES))


def test_headers_count_in_what_a_server_takes() -> None:
    assert message("a", 100).fits(114)
    assert not message("a", 101).fits(114)
    headers = {"X-Request-Id": "r"}  # and a colon, a space and a line end
    assert Message("a", bytes(100), headers).fits(131)
    assert not Message("a", bytes(101), headers).fits(131)
