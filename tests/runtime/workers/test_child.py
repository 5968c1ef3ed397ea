"""How a worker handles the lines from its supervisor."""

from __future__ import annotations

import json
import os
import signal
from io import FileIO

import pytest
from structlog.testing import capture_logs

from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.workers.child import _follow_supervisor
from openguild_runtime.workers.supervisor import as_plain_values
from tests.support.server import SIGNING_KEY


def configuration_line(replay_window: int) -> bytes:
    given = {"session": {"signing_key": SIGNING_KEY}, "messaging": {"replay_window": replay_window}}
    return json.dumps({"config": as_plain_values(ServerConfig.model_validate(given))}).encode() + b"\n"


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        b"no order\n",
        b"[]\n",
        b"{}\n",
        b'{"config":{"nonsense":1}}\n',
        b"\xff\n",
        configuration_line(3)[:200] + b"\n",
    ],
)
def test_an_invalid_line_is_ignored(monkeypatch: pytest.MonkeyPatch, bad: bytes) -> None:
    """The last line is cut short because the supervisor ended, which the worker notices too."""
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, number: signals.append(number))
    reading, writing = os.pipe()
    os.write(writing, configuration_line(1) + bad + configuration_line(2) + configuration_line(3)[:-200])
    os.close(writing)
    latest: list[ServerConfig] = []
    latest.append(ServerConfig.model_validate({"session": {"signing_key": SIGNING_KEY}}))
    with FileIO(reading) as lifeline, capture_logs() as records:
        _follow_supervisor(lifeline, latest)
    assert signals == [signal.SIGHUP, signal.SIGHUP, signal.SIGTERM]
    assert latest[0].messaging.replay_window == 2
    assert len(records) == 2
    assert SIGNING_KEY not in str(records)
