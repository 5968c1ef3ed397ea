"""The screen of `admin top`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.diagnosis.snapshot import ChannelLine, ClosedLine, LoginLine, ReaderLine, Snapshot, UserLine
from openguild_proto.diagnosis.top_table import MIN_WIDTH, draw, duration
from tests.proto.diagnosis.snapshots import component, snapshot


def busy(lines: int = 3) -> Snapshot:
    numbers = range(lines)
    return snapshot(
        channels=[
            ChannelLine(
                channel_id=f"channel-{n}", depth=90 - n, subscribers=50, behind=90 - n, slowest_username=f"slow-{n}"
            )
            for n in numbers
        ],
        readers=[
            ReaderLine(
                user_id="id", username=f"slow-{n}", session_id="s", address="192.0.2.9", behind=90 - n, channel_id=None
            )
            for n in numbers
        ],
        closed=[
            ClosedLine(
                secs_ago=125.0,
                user_id=f"gone-{n}",
                address="192.0.2.8",
                missed=300,
                cause="write_timeout",
                channel_id=None,
            )
            for n in numbers
        ],
        users=[UserLine(user_id=f"id-{n}", requests=100 - n) for n in numbers],
        login_addresses=[LoginLine(address=f"192.0.2.{n}", failed=60 - n) for n in numbers],
        login_accounts=[LoginLine(user_id=f"id-{n}", username=f"tried-{n}", failed=9 - n) for n in numbers],
    )


def texts(
    now: Snapshot, before: Snapshot | None = None, elapsed: float = 0.0, *, width: int = 120, height: int = 50
) -> list[str]:
    return [line.text for line in draw(now, before, elapsed, width=width, height=height)]


def test_the_tables_name_who_is_slow_who_was_and_who_is_busy() -> None:
    screen = "\n".join(texts(busy(1)))
    assert screen.endswith(
        "CHANNEL WITH A BACKLOG  BACKLOG  READERS  BEHIND  SLOWEST  ADDRESS\n"
        "channel-0                    90       50      90  slow-0\n"
        "\n"
        "SLOWEST READER  BEHIND  ADDRESS    OF\n"
        "slow-0              90  192.0.2.9  notifications\n"
        "\n"
        "CLOSED FOR SLOWNESS WITHIN AN HOUR  AGO    MISSED  CAUSE          ADDRESS    CHANNEL\n"
        "gone-0                              2 min     300  write timeout  192.0.2.8\n"
        "\n"
        "LOGINS FAIL FROM  IN THE LAST MINUTE\n"
        "192.0.2.0                         60\n"
        "\n"
        "LOGINS FAIL FOR  IN THE LAST MINUTE\n"
        "tried-0                           9\n"
        "\n"
        "BUSIEST USER  REQUESTS IN THE LAST MINUTE\n"
        "id-0                                  100"
    )


def test_a_worker_without_an_answer_is_named() -> None:
    lines = draw(snapshot(), None, 0.0, width=120, height=50, unanswered=["worker 1: does not listen"])
    assert [line.text for line in lines if line.is_bad] == ["worker 1: does not listen"]


def test_rates_are_those_since_the_last_look() -> None:
    before = snapshot(requests=1_000, failed=5, cpu_secs=10.0)
    now = snapshot(requests=1_200, refused=1, failed=5, cpu_secs=11.0, failed_logins=40)
    assert texts(now, before, 2.0)[1] == "last 2 s: requests 100/s · 4xx 0.5/s · 5xx 0/s · failed logins 20/s · cpu 50%"
    assert texts(now)[1].startswith("since the start: requests 12/s")
    assert texts(snapshot(requests=3), now, 2.0)[1].startswith("last 2 s: requests 0/s"), "the server was started again"


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"status": "degraded"}, "degraded"),
        (
            {"components": [component("database", "error", "not reachable (refused)")]},
            "database: not reachable (refused)",
        ),
        ({"stall_max_secs": 0.25}, "late by up to 250 ms"),
        ({"pool_idle": 0}, "pool 10 of 10 in use"),
        ({"failed": 1}, "5xx 0.0/s"),
        ({"log_lines_dropped": 3}, "log: 3 lines dropped"),
    ],
)
def test_what_is_wrong_is_marked(changed: dict[str, object], text: str) -> None:
    bad = [line.text for line in draw(snapshot(**changed), None, 0.0, width=120, height=50) if line.is_bad]
    assert len(bad) == 1
    assert text in bad[0]


def test_nothing_wrong_marks_nothing() -> None:
    lines = draw(
        snapshot(components=[component("nats", "configured", "connection established")]),
        None,
        0.0,
        width=120,
        height=50,
    )
    assert not [line for line in lines if line.is_bad]
    assert "nats: connection established" in [line.text for line in lines]
    assert lines[-1].text.startswith("no backlog")


@given(st.integers(1, 200), st.integers(1, 80), st.integers(0, 20))
def test_it_fits_the_terminal_and_shows_a_line_of_each_table(width: int, height: int, lines: int) -> None:
    screen = draw(busy(lines), None, 0.0, width=width, height=height)
    assert len(screen) <= height
    assert all(len(line.text) <= max(width, MIN_WIDTH) for line in screen)
    if lines and height >= 5 + 6 * 3:
        assert len([line for line in screen if line.is_head]) == 6


@pytest.mark.parametrize(
    ("secs", "text"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (3_599, "59 min"), (11_520, "3 h 12 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_for_people(secs: float, text: str) -> None:
    assert duration(secs) == text
