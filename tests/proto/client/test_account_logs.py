"""Which logs a client follows, as its user joins and leaves guilds and channels come and go."""

from __future__ import annotations

import json
from typing import Any

from openguild_proto.client import AccountLogs, GatewayClient, ResumePosition
from openguild_proto.gateway.client_events import Delivered, Followed
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import LogHead, Ready, ReadySession, ReadyUser
from openguild_proto.limits import MAX_GATEWAY_LOGS
from openguild_proto.schemas.guilds import Guild
from tests.support.gateway import log_name

ME, TEA, COFFEE, GENERAL, NEWS = (f"0198c0de-0000-7000-8000-{number:012}" for number in range(5))


class Account:
    """A client that is told by a test what the server says; `asked`: log -> (epoch, after), or None for "from now on"."""

    def __init__(self, kept: dict[str, ResumePosition] | None = None) -> None:
        self.gateway = GatewayClient(Encoding.JSON, jitter=lambda: 0.5, random_bytes=bytes)
        self.gateway.start("t", 0.0)
        self.gateway.connected(0.0)
        for log, place in (kept or {}).items():
            self.gateway.follow(log, place)
        self.logs = AccountLogs(self.gateway)
        self.asked: dict[str, tuple[int | None, int] | None] = {}
        self._refs: dict[str, int] = {}
        self.say({
            "type": "hello", "heartbeat_ms": 1_000, "auth_ms": 1_000, "server_time": "2026-01-01T00:00:00Z", "capabilities": [],
            "limits": {"logs": 1, "frame_bytes": 65_536, "frames_per_minute": 1, "held_frames": 1},
        })  # fmt: skip

    def say(self, frame: dict[str, Any]) -> None:
        self.gateway.received(json.dumps(frame), 0.0)
        while (event := self.gateway.next_event()) is not None:
            if isinstance(event, Followed):
                self.logs.followed(event)
            elif isinstance(event, Delivered):
                self.logs.delivered(event)
        for message in self.gateway.messages_to_send():
            sent = json.loads(message)
            for line in sent["logs"] if sent["type"] == "sub" else ():
                self._refs[line["log"]] = sent["ref"]
                self.asked[line["log"]] = (line.get("epoch"), line["after"]) if "after" in line else None

    def open(self, *guilds: str, heads: dict[str, int] | None = None) -> None:
        shown = [Guild(guild_id, "name", "2026-01-01T00:00:00Z") for guild_id in guilds]
        places = [LogHead(log, 1, head) for log, head in (heads or {}).items()]
        self.logs.opened(Ready(ReadyUser(ME, "me"), ReadySession(ME, "2026-01-01T00:00:00Z"), shown, places))
        self.say({"type": "hb"})

    def begin(self, log: str, after: int, head: int, *, recovered: bool = True) -> None:
        line = {"log": log, "epoch": 1, "after": after, "head": head, "recovered": recovered}
        self.say({"type": "sub_ok", "ref": self._refs[log], "logs": [line]})

    def event(self, log: str, sequence: int, event_type: str, **content: Any) -> None:
        event = {
            "schema_version": 1, "event_id": "$e", "origin_server": "s", "room_id": log, "event_type": event_type,
            "sender": ME, "origin_ts": 0, "content": content, "prev_events": [], "auth_events": [], "signatures": {},
        }  # fmt: skip
        self.say({"type": "ev", "log": log, "epoch": 1, "seq": sequence, "event": event})

    def listed(self, guild_id: str, head: int, *channels: str) -> None:
        self.logs.listed(guild_id, head, channels)
        self.say({"type": "hb"})


def test_everything_is_followed_from_now_on() -> None:
    account = Account()
    account.open(TEA)
    assert account.asked == {f"user:{ME}": None, f"guild:{TEA}": None}
    assert account.logs.next_listing() is None, "not before the log is level"
    account.begin(f"guild:{TEA}", 7, 7)
    assert account.logs.next_listing() == TEA
    account.listed(TEA, 7, GENERAL)
    assert account.asked[f"channel:{GENERAL}"] is None
    assert account.logs.next_listing() is None


def test_logs_begin_where_the_list_of_guilds_was_made() -> None:
    account = Account({f"guild:{COFFEE}": ResumePosition(1, 2)})
    account.open(TEA, COFFEE, heads={f"user:{ME}": 5, f"guild:{TEA}": 7, f"guild:{COFFEE}": 9})
    assert account.asked == {f"user:{ME}": (1, 5), f"guild:{TEA}": (1, 7), f"guild:{COFFEE}": (1, 2)}


def test_the_guilds_are_listed_again_where_the_own_log_begins_anew() -> None:
    account = Account()
    account.open(TEA)
    account.begin(f"user:{ME}", 4, 4)
    assert not account.logs.wants_guilds(), "the connection named them"
    account.say({"type": "gone", "log": f"user:{ME}", "code": "restarted"})
    account.begin(f"user:{ME}", 9, 9, recovered=False)
    assert [account.logs.wants_guilds(), account.logs.wants_guilds()] == [True, False]
    account.logs.joined([COFFEE])
    account.say({"type": "hb"})
    assert account.asked[f"guild:{COFFEE}"] is None
    account.begin(f"guild:{TEA}", 0, 0)
    assert account.logs.next_listing() == TEA, "nothing else is forgotten"


def test_a_guild_that_was_refused_is_followed_when_it_is_joined_again() -> None:
    account = Account()
    account.open(TEA)
    account.say(
        {"type": "err", "ref": account._refs[f"guild:{TEA}"], "log": f"guild:{TEA}", "code": "not_found", "message": ""}
    )
    account.logs.gone(f"guild:{TEA}")
    account.asked.clear()
    account.begin(f"user:{ME}", 0, 0)
    account.event(f"user:{ME}", 1, "guild.joined", guild_id=TEA, name="tea", role="guest")
    assert f"guild:{TEA}" in account.asked


def test_a_channel_made_while_away_is_followed_from_its_beginning() -> None:
    kept = {
        f"user:{ME}": ResumePosition(1, 3),
        f"guild:{TEA}": ResumePosition(1, 4),
        f"channel:{GENERAL}": ResumePosition(1, 90),
    }
    account = Account(kept)
    account.open(TEA)
    assert account.asked[f"channel:{GENERAL}"] == (1, 90)
    account.begin(f"guild:{TEA}", 4, 6)
    account.event(f"guild:{TEA}", 5, "channel.created", channel_id=NEWS, name="news")
    assert account.asked[f"channel:{NEWS}"] == (None, 0)
    assert account.logs.next_listing() is None
    account.event(f"guild:{TEA}", 6, "guild.updated", name="other")
    assert account.logs.next_listing() == TEA
    account.listed(TEA, 6, GENERAL, NEWS)
    assert account.asked[f"channel:{GENERAL}"] == (1, 90), "not asked for again"


def test_a_list_that_is_ahead_of_the_log_waits_for_it() -> None:
    account = Account()
    account.open(TEA)
    account.begin(f"guild:{TEA}", 0, 0)
    account.listed(TEA, 1, NEWS)
    assert f"channel:{NEWS}" not in account.asked
    account.event(f"guild:{TEA}", 1, "channel.created", channel_id=NEWS, name="news")
    assert account.asked[f"channel:{NEWS}"] == (None, 0), "from its beginning, not from now on"


def test_a_channel_in_a_list_that_is_made_behind_its_head_is_followed_from_its_beginning() -> None:
    """A list may be newer than the place that it names (PROTOCOL 7.9.5)."""
    account = Account()
    account.open(TEA)
    account.begin(f"guild:{TEA}", 0, 0)
    account.listed(TEA, 0, NEWS, GENERAL)
    for channel in (NEWS, GENERAL):
        account.begin(f"channel:{channel}", 3, 3)
    account.event(f"channel:{GENERAL}", 4, "later.type")
    account.event(f"guild:{TEA}", 1, "channel.created", channel_id=NEWS, name="news")
    assert account.asked[f"channel:{NEWS}"] == (None, 0)
    account.event(f"guild:{TEA}", 2, "channel.created", channel_id=GENERAL, name="general")
    assert account.asked[f"channel:{GENERAL}"] is None, "its events would be repeated"


def test_guilds_and_channels_that_come_are_followed() -> None:
    account = Account()
    account.open(TEA)
    account.begin(f"user:{ME}", 0, 0)
    account.event(f"user:{ME}", 1, "guild.joined", guild_id=COFFEE, name="coffee", role="guest")
    assert account.asked[f"guild:{COFFEE}"] is None
    account.event(f"user:{ME}", 2, "channel.role_given", channel_id=NEWS, guild_id=TEA, role="guest")
    assert account.asked[f"channel:{NEWS}"] is None


def test_a_guild_that_was_left_is_not_listed() -> None:
    account = Account()
    account.open(TEA)
    account.begin(f"user:{ME}", 0, 0)
    account.begin(f"guild:{TEA}", 0, 0)
    account.event(f"user:{ME}", 1, "guild.left", guild_id=TEA)
    account.listed(TEA, 0, GENERAL)
    assert f"channel:{GENERAL}" not in account.asked


def test_a_connection_compares_the_guilds() -> None:
    account = Account()
    account.open(TEA)
    account.begin(f"guild:{TEA}", 0, 0)
    account.open(COFFEE)
    assert f"guild:{COFFEE}" in account.asked
    account.listed(TEA, 0, GENERAL)
    assert f"channel:{GENERAL}" not in account.asked, "it was left while the client was away"
    account.logs.gone(f"guild:{COFFEE}")
    account.listed(COFFEE, 0, NEWS)
    assert f"channel:{NEWS}" not in account.asked


def test_a_known_guild_is_listed_again_only_if_its_log_could_not_go_on() -> None:
    account = Account()
    account.open(TEA)
    account.begin(f"guild:{TEA}", 0, 0)
    assert account.logs.next_listing() == TEA
    account.listed(TEA, 0, GENERAL)
    for recovered, listing in ((True, None), (False, TEA)):
        account.logs.followed(Followed(f"guild:{TEA}", 1, 2, 2, recovered))
        assert account.logs.next_listing() == listing


def test_logs_beyond_the_bound_are_named() -> None:
    account = Account({log_name(number): ResumePosition(1, 1) for number in range(MAX_GATEWAY_LOGS - 1)})
    account.open(TEA)
    assert account.logs.skipped == {f"guild:{TEA}"}
