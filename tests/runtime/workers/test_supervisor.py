"""Restarts of failing workers and the detection of hung ones; the workers are small programs."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.process.shutdown import Shutdown
from openguild_runtime.server.siblings import Heartbeat
from openguild_runtime.workers import supervisor
from openguild_runtime.workers.supervisor import Supervisor, Worker
from tests.support.waiting import eventually

CONFIG = ServerConfig.model_validate({"workers": 2, "nats": {"url": "nats://127.0.0.1:1"}, "drain": {"window_secs": 0}})
PROGRAM = """
import json, socket, sys, time
start_parameters = json.loads(sys.stdin.readline())
import msgspec
heartbeat = msgspec.msgpack.encode({"type": "heartbeat", "listening": True, "changes": {}})
socket.socket(fileno=start_parameters["link"]).sendall(len(heartbeat).to_bytes(4, "big") + heartbeat)
if start_parameters["number"] in DYING:
    sys.exit(3)
sys.stdin.read()
"""


async def no_hangups() -> AsyncIterator[signal.Signals]:
    await anyio.sleep_forever()
    yield signal.SIGHUP


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_BACKOFF_SECS", 0.01)
    monkeypatch.setattr(supervisor, "MAX_FAILURES", 3)


def use(monkeypatch: pytest.MonkeyPatch, directory: Path, *dying: int) -> None:
    (directory / "worker.py").write_text(f"DYING = {dying}\n{PROGRAM}")
    monkeypatch.setattr(supervisor, "PROGRAM", [sys.executable, str(directory / "worker.py")])


@pytest.mark.anyio
async def test_the_server_ends_if_no_worker_can_be_kept_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, tmp_path, 0, 1)
    with capture_logs() as records, anyio.fail_after(30):
        status = await Supervisor(CONFIG, lambda: CONFIG, Shutdown(3_600.0)).run(no_hangups())
    assert status == 1
    ends = [record for record in records if "the server ends" in record["event"]]
    restarts = [record["worker"] for record in records if record["event"] == "a worker died and is started again"]
    assert ends
    for record in ends:  # more than MAX_FAILURES where the other one served at that moment
        assert record["status"] == 3
        assert record["failures"] >= supervisor.MAX_FAILURES
        assert restarts.count(record["worker"]) == record["failures"] - 1


@pytest.mark.anyio
async def test_a_slot_is_retried_while_another_worker_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, tmp_path, 1)
    shutdown = Shutdown(3_600.0)
    with capture_logs() as records:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Supervisor(CONFIG, lambda: CONFIG, shutdown).run, no_hangups())
            await eventually(
                lambda: sum("started again" in record["event"] for record in records) > 2 * supervisor.MAX_FAILURES,
                secs=30, what="many tries",
            )  # fmt: skip
            assert not any("the server ends" in record["event"] for record in records)
            shutdown.request()


@pytest.mark.anyio
async def test_a_failed_process_start_is_logged_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PROGRAM", ["/nowhere/python"])
    with capture_logs() as records, anyio.fail_after(30):
        assert await Supervisor(CONFIG, lambda: CONFIG, Shutdown(3_600.0)).run(no_hangups()) == 1
    failures = [record for record in records if record["event"] == "a worker's process cannot be started"]
    assert {record["reason"] for record in failures} == {"no such file or directory"}


@pytest.mark.anyio
async def test_a_pause_of_the_supervisor_counts_as_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts checks and not time: after SIGSTOP and SIGCONT, or a suspended machine, no worker is killed."""
    looks: list[float] = []
    worker = Worker(0)

    async def look(secs: float) -> None:
        looks.append(secs)
        if len(looks) in (1, 4):
            worker.record_heartbeat(Heartbeat(listening=True, changes={}))

    monkeypatch.setattr(supervisor.anyio, "sleep", look)
    await worker.wait_until_hung()
    assert len(looks) == 4 + supervisor.MAX_MISSED_HEARTBEATS
