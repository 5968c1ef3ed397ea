"""The events of a gateway client: where those of a log begin."""

from __future__ import annotations

import pytest

from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.client_events import place_before
from openguild_proto.gateway.client_logs import ResumePosition
from tests.support.gateway import log_name

LOG, OTHER = log_name(1), log_name(2)


@pytest.mark.parametrize(
    ("events", "place"),
    [
        ([], None),
        ([told.Delivered(OTHER, 1, 5, b"{}"), told.LogLive(LOG)], None),
        ([told.Followed(LOG, 1, 4, 9, True), told.Delivered(LOG, 1, 5, b"{}")], ResumePosition(1, 4)),
        ([told.Followed(OTHER, 1, 4, 9, True), told.Delivered(LOG, 2, 7, b"{}")], ResumePosition(2, 6)),
    ],
)
def test_the_place_is_before_the_first_event_of_the_log(
    events: list[told.ClientEvent], place: ResumePosition | None
) -> None:
    assert place_before(events, LOG) == place
