"""Formats a snapshot as lines for a terminal: problems first, then their causes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from openguild_proto.diagnosis.snapshot import Snapshot

STALL_SECS = 0.1  # longer stalls are highlighted
MiB = 1_048_576
MIN_WIDTH = 40


class Shown(NamedTuple):
    """A line of the screen. `is_bad`: it shows a problem. `is_head`: the head of a table."""

    text: str
    is_bad: bool = False
    is_head: bool = False


def draw(
    now: Snapshot,
    before: Snapshot | None,
    elapsed_secs: float,
    *,
    width: int,
    height: int,
    unanswered: Sequence[str] = (),
) -> list[Shown]:
    """Return at most `height` lines of at most `width` characters.

    `before`: the snapshot of `elapsed_secs` ago, for rates; None: rates since the start. `unanswered`: the workers that are not
    included, with the reason. Each table gets a share of the height.
    """
    lines = [*_summary(now, before, elapsed_secs), *(Shown(each, is_bad=True) for each in unanswered), Shown("")]
    found = (_channels(now), _readers(now), _closed(now), *_logins(now), _users(now))
    tables = [table for table in found if len(table) > 1]
    if not tables:
        lines.append(
            Shown("no backlog, no slow reader, no failed login and no request of a user within the last minute")
        )
    room = max(2, (height - len(lines)) // max(1, len(tables)) - 1)  # with a blank line after each
    for table in tables:
        lines += [*table[:room], Shown("")]
    while lines and not lines[-1].text:
        lines.pop()
    return [Shown(line.text[: max(width, MIN_WIDTH)], line.is_bad, line.is_head) for line in lines[:height]]


def _summary(now: Snapshot, before: Snapshot | None, elapsed_secs: float) -> list[Shown]:
    def rate(name: str) -> float:
        if before is None or elapsed_secs <= 0:
            return float(getattr(now, name)) / max(now.uptime_secs, 1.0)
        return max(0.0, float(getattr(now, name) - getattr(before, name))) / elapsed_secs

    workers = f" · {now.workers} workers" if now.workers > 1 else ""
    failed, stall = rate("failed"), now.stall_max_secs
    window = "since the start" if before is None else f"last {elapsed_secs:.0f} s"
    lines = [
        Shown(
            f"OpenGuild {now.version} · {now.status} · up {duration(now.uptime_secs)}{workers}", now.status != "ready"
        ),
        Shown(
            f"{window}: requests {_rate(rate('requests'))} · 4xx {_rate(rate('refused'))} · 5xx {_rate(failed)} · "
            f"failed logins {_rate(rate('failed_logins'))} · "
            f"cpu {100 * rate('cpu_secs'):.0f}%",
            failed > 0,
        ),
        Shown(f"within two minutes: event loop late by up to {1000 * stall:.0f} ms", stall >= STALL_SECS),
        Shown(
            f"now: connections {now.connections} · streams {now.streams} · gateway {now.gateway_sockets} sockets, "
            f"{now.subscriptions} logs, {now.catching_up} catching up"
        ),
        Shown(
            f"now: commit queue {now.commit_queue} · pool {now.pool_size - now.pool_idle} of {now.pool_size} in use · "
            f"memory {now.memory_bytes / MiB:.0f} MiB · files {now.descriptors}",
            now.pool_size > 0 and now.pool_idle == 0,
        ),
    ]
    lines += [
        Shown(f"{each.name}: {each.details}", each.status == "error")
        for each in now.components
        if each.status == "error" or each.name == "nats"
    ]
    if now.log_lines_dropped:
        lines.append(
            Shown(
                f"log: {now.log_lines_dropped} lines dropped, its reader is too slow or its disk is full", is_bad=True
            )
        )
    return lines


def _channels(now: Snapshot) -> list[Shown]:
    return _table(
        ("CHANNEL WITH A BACKLOG", "BACKLOG", "READERS", "BEHIND", "SLOWEST", "ADDRESS"),
        [
            (
                line.channel_id, str(line.depth), str(line.subscribers), str(line.behind or ""),
                line.slowest_username or line.slowest_user or "", line.slowest_address or "",
            )
            for line in now.channels
        ],
    )  # fmt: skip


def _readers(now: Snapshot) -> list[Shown]:
    return _table(
        ("SLOWEST READER", "BEHIND", "ADDRESS", "OF"),
        [
            (line.username or line.user_id, str(line.behind), line.address, line.channel_id or _kind(line.logs))
            for line in now.readers
            if line.behind > 0
        ],
    )


def _kind(logs: int | None) -> str:
    return "notifications" if logs is None else f"gateway, {logs} logs"


def _closed(now: Snapshot) -> list[Shown]:
    return _table(
        ("CLOSED FOR SLOWNESS WITHIN AN HOUR", "AGO", "MISSED", "CAUSE", "ADDRESS", "CHANNEL"),
        [
            (
                line.username or line.user_id, duration(line.secs_ago), str(line.missed), line.cause.replace("_", " "),
                line.address, line.channel_id or "",
            )
            for line in now.closed
        ],
    )  # fmt: skip


def _logins(now: Snapshot) -> tuple[list[Shown], list[Shown]]:
    count = "IN THE LAST MINUTE"
    return (
        _table(("LOGINS FAIL FROM", count), [(line.address or "", str(line.failed)) for line in now.login_addresses]),
        _table(
            ("LOGINS FAIL FOR", count),
            [(line.username or line.user_id or "", str(line.failed)) for line in now.login_accounts],
        ),
    )


def _users(now: Snapshot) -> list[Shown]:
    return _table(
        ("BUSIEST USER", "REQUESTS IN THE LAST MINUTE"),
        [(line.username or line.user_id, str(line.requests)) for line in now.users],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Shown]:
    """Align the columns: numbers to the right, the rest to the left."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    numeric = [
        bool(rows) and all(not row[column] or row[column].isdecimal() for row in rows) for column in range(len(head))
    ]

    def joined(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(wide) if right else cell.ljust(wide)
            for cell, wide, right in zip(row, widths, numeric, strict=True)
        )
        return "  ".join(cells).rstrip()

    return [Shown(joined(head), is_head=True), *(Shown(joined(row)) for row in rows)]


def _rate(each_second: float) -> str:
    return f"{each_second:.0f}/s" if each_second >= 10 or each_second == 0 else f"{each_second:.1f}/s"


def duration(secs: float) -> str:
    """Return the duration for people, in at most two units: `3 h 12 min`."""
    whole = int(secs)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"
