"""How a worker handles the lines from its supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from io import FileIO

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.server.siblings import Heartbeat, SiblingLink
from openguild_runtime.workers.child import _follow_supervisor
from openguild_runtime.workers.supervisor import PROGRAM, as_plain_values
from tests.support.server import ROOT, SIGNING_KEY
from tests.support.waiting import PATIENCE_SECS, free_port


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


def start_worker(lifeline: int, link: socket.socket) -> subprocess.Popen[str]:
    return subprocess.Popen(
        PROGRAM, stdin=lifeline, stderr=subprocess.PIPE, cwd=ROOT, pass_fds=(link.fileno(),), text=True
    )


@pytest.mark.anyio
async def test_a_reload_that_comes_while_it_starts_is_applied() -> None:
    """It is read before the loop hears signals, and is no change that an operator has made."""
    ours, theirs = socket.socketpair()
    given = {
        "storage": "memory", "bind_addr": f"127.0.0.1:{free_port()}", "log_format": "json",
        "session": {"signing_key": SIGNING_KEY}, "messaging": {"replay_window": 1},
    }  # fmt: skip
    start = {
        "config": as_plain_values(ServerConfig.model_validate(given)),
        "changes": {}, "number": 0, "count": 1, "supervisor": os.getpid(), "link": theirs.fileno(),
    }  # fmt: skip
    reload = {"config": as_plain_values(ServerConfig.model_validate(given | {"messaging": {"replay_window": 2}}))}
    lines = "".join(json.dumps(line) + "\n" for line in (start, reload)).encode()
    reading, writing = os.pipe()
    heartbeats: list[Heartbeat] = []
    with ours, theirs, FileIO(writing, "w") as lifeline, anyio.fail_after(PATIENCE_SECS):  # its end ends the worker
        lifeline.write(lines)
        worker = start_worker(reading, theirs)
        os.close(reading)
        theirs.close()
        with anyio.CancelScope() as listening:

            def hear(message: object) -> None:
                assert isinstance(message, Heartbeat)
                heartbeats.append(message)
                if message.listening:
                    listening.cancel()

            await SiblingLink(ours).run(hear)
    _, log = await anyio.to_thread.run_sync(worker.communicate)
    applied = [json.loads(line).get("applied") for line in log.splitlines() if "configuration applied" in line]
    assert applied == [["messaging.replay_window"]], log
    assert [heartbeat.changes for heartbeat in heartbeats if heartbeat.changes] == []
