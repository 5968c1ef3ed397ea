"""What an operator is told of a request."""

from __future__ import annotations

from openguild_proto.diagnosis.requests import FinishedRequest
from openguild_proto.diagnosis.why import Remembered, explain, is_known, not_found

REFUSED = FinishedRequest(
    ended_at=1_700_000_000.0, request_id="abc", method="POST", route="/channels/{channel_id}/messages", status=429,
    secs=0.0021, client="192.0.2.1", user_id="u1", error="message_rate_limit", reason="message_rate_limit",
    detail="limit: messages",
)  # fmt: skip


def told(*requests: FinishedRequest, lines: tuple[str, ...] = (), **more: float) -> Remembered:
    return Remembered(requests=list(requests), usernames={"u1": "alice"}, lines=list(lines), kept=10, **more)


def test_a_refusal_is_explained() -> None:
    assert explain("abc", [told(REFUSED, lines=("a line",)), told()]) == [
        "request abc",
        "",
        "  ended     2023-11-14 22:13:20 UTC",
        "  route     POST /channels/{channel_id}/messages",
        "  status    429",
        "  user      alice (u1)",
        "  client    192.0.2.1",
        "  duration  2.1 ms",
        "  error     message_rate_limit: you are sending messages too fast",
        "  detail    limit: messages",
        "",
        "log:",
        "a line",
    ]


def test_texts_of_peers_do_nothing_to_the_terminal() -> None:
    """A name of a parameter, which anybody chooses, is in the detail; a request id is what somebody has sent in."""
    named = FinishedRequest(
        1.0,
        "x",
        "GET",
        "/guilds",
        400,
        0.1,
        "192.0.2.1",
        detail="\x1b]0;owned\x07\x9b2J\n  status    200 is no parameter",
    )
    text = explain("x\x1b[2J", [told(named, lines=("WARN \x9b2J\nTraceback",))])
    assert all(line.replace("\n", "").isprintable() for line in text)
    assert text[0] == "request x\\u001b[2J"
    assert text[-2:] == ["log:", "WARN \\u009b2J\nTraceback"]
    assert "  detail    \\u001b]0;owned\\u0007\\u009b2J\\n  status    200 is no parameter" in text


def test_a_slow_failure_without_a_user_says_so() -> None:
    failed = FinishedRequest(
        1.0, "x", "", "unmatched", 500, 2.0, "192.0.2.1", error="server_error", reason="other", cause="expired"
    )
    text = "\n".join(explain("x", [told(failed)]))
    assert "500 (the server's failure)" in text
    assert "2000.0 ms (slow)" in text
    assert "user      not authenticated" in text
    assert "route     unmatched" in text
    assert "reason    other" in text
    assert "cause     expired (the client is not told)" in text


def test_a_stream_is_named_as_such() -> None:
    opened = FinishedRequest(1.0, "x", "GET", "/gateway", 101, 0.0, "192.0.2.1", user_id="u2")
    text = "\n".join(explain("x", [told(opened)]))
    assert "101 (a stream or gateway socket was opened)" in text
    assert "user      u2" in text


def test_lines_alone_are_something() -> None:
    assert not is_known([told(), told()])
    assert is_known([told(), told(lines=("a line",))])


def test_an_unknown_request_is_answered_with_how_far_memory_reaches() -> None:
    text = not_found("x", [told(since=60.0, troubled_since=5.0), told(since=120.0)])
    assert text == (
        "nothing is remembered of request x here (20 requests; requests since 1970-01-01 00:02:00 UTC, refused, failed and slow "
        "ones since 1970-01-01 00:00:05 UTC): ask the other hosts, or search the logs for it"
    )
    assert "(20 requests): ask" in not_found("x", [told(), told()])
