"""Which parts of which logs a client is told (PROTOCOL 7.9)."""

from __future__ import annotations

from openguild_proto.log.log_names import LogKind
from openguild_proto.log.sync import Followed, News, plan_sync
from openguild_proto.records import LogAccess, LogPart, LogPosition


def followed(kind: str, log_id: str, sequence: int, epoch: int = 1) -> Followed:
    return Followed(LogKind(kind), LogPosition(log_id, epoch, sequence))


def access(kind: str, log_id: str, head: int, role: str | None = "member", epoch: int = 1) -> LogAccess:
    memberships = {"user": (), "guild": (role,), "channel": (None, role)}[kind]
    return LogAccess(kind, LogPosition(log_id, epoch, head), memberships, ())


def news_of(log_id: str, found: list[LogAccess], asked: list[Followed], limit: int = 10) -> News | None:
    plan = plan_sync(asked, found, user_id="me", limit=limit)
    return next((news for news in plan.news if news.log_id == log_id), None)


def test_logs_without_news_are_not_told() -> None:
    plan = plan_sync([followed("channel", "a", 7)], [access("channel", "a", 7)], user_id="me", limit=10)
    assert plan == ((), ())


def test_parts_follow_the_places_and_fill_the_limit_in_the_order_asked() -> None:
    asked = [followed("guild", "g", 3), followed("channel", "a", 0), followed("channel", "b", 5)]
    found = [access("channel", "a", 9), access("channel", "b", 6), access("guild", "g", 5)]
    plan = plan_sync(asked, found, user_id="me", limit=10)
    assert plan.parts == (LogPart("g", 3, 2), LogPart("a", 0, 8))
    assert [(news.log_id, news.newest and news.newest.sequence) for news in plan.news] == [("g", 5), ("a", 9), ("b", 6)]


def test_only_what_may_be_read_is_told() -> None:
    cases = [
        (followed("user", "me", 0), access("user", "me", 1), True),
        (followed("user", "you", 0), access("user", "you", 1), False),
        (followed("guild", "g", 0), access("guild", "g", 1, role=None), False),
        (followed("guild", "g", 0), access("guild", "g", 1, role="guest"), True),
        (followed("channel", "c", 0), access("channel", "c", 1, role=None), False),
        (followed("channel", "g", 0), access("guild", "g", 1), False),  # of another kind than it is called
        (followed("channel", "nowhere", 0), access("guild", "g", 1), False),
    ]
    for asked, found, allowed in cases:
        news = news_of(asked.place.log_id, [found], [asked])
        assert news is not None
        assert (news.newest is not None) == allowed, asked


def test_a_place_in_another_log_is_of_no_use() -> None:
    for asked, head, epoch in ((followed("channel", "a", 3), 5, 2), (followed("channel", "a", 6), 5, 1)):
        found = access("channel", "a", head, epoch=epoch)
        plan = plan_sync([asked], [found], user_id="me", limit=10)
        assert plan == ((News(LogKind.CHANNEL, "a", found.place, restarted=True),), ())
