"""The close of a socket whose frame has no `ref` to answer to says what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.gateway.encoding import Encoding
from tests.support.gateway import Replica, opened


@pytest.fixture(params=Encoding)
def replica(request: pytest.FixtureRequest) -> Replica:
    return Replica(encoding=request.param)


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ({"type": "read", "channel_id": "00000000-0000-4000-8000-000000000000"}, "ref must be provided"),
        ({"type": "read", "ref": "3"}, "ref must be an integer"),
        ({"type": "unsub", "logs": ["x"]}, "logs[0] must be channel:, guild: or user: and an id"),
        ({"type": "x" * 5_000}, "type must be one of: auth, edit, hb, post, react, read, redact, sub, typing, unsub"),
        ([], "the frame must be an object"),
    ],
)
def test_the_close_says_what_is_wrong_with_a_frame(replica: Replica, frame: Any, problem: str) -> None:
    socket = opened(replica)
    socket.tell(frame)
    assert socket.closed is not None
    assert socket.closed.reason == f"malformed frame: {problem}"
