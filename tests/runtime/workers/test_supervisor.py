"""Restarts of failing workers and the detection of hung ones; the workers are small programs."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.process.shutdown import Shutdown
from openguild_runtime.server.siblings import Heartbeat
from openguild_runtime.workers.supervisor import MAX_MISSED_HEARTBEATS, Supervisor, Worker
from tests.support.waiting import PATIENCE_SECS, eventually

MAX_FAILURES = 3
CONFIG = ServerConfig.model_validate({"workers": 2, "nats": {"url": "nats://127.0.0.1:1"}, "drain": {"window_secs": 0}})
PROGRAM = """
import json, os, socket, sys, time
start_parameters = json.loads(sys.stdin.readline())
import msgspec
heartbeat = msgspec.msgpack.encode({"type": "heartbeat", "listening": True, "changes": {}})
socket.socket(fileno=start_parameters["link"]).sendall(len(heartbeat).to_bytes(4, "big") + heartbeat)
if start_parameters["number"] in DYING:
    while len(DYING) < 2 and not os.path.exists(SERVING):  # three deaths before the other serves end the server
        time.sleep(0.01)
    sys.exit(3)
open(SERVING, "w").close()
sys.stdin.read()
"""


async def no_hangups() -> AsyncIterator[signal.Signals]:
    await anyio.sleep_forever()
    yield signal.SIGHUP


def quick(shutdown: Shutdown, *program: str) -> Supervisor:
    """A supervisor that loses no time between two starts of `program`."""
    return Supervisor(
        CONFIG, lambda: CONFIG, shutdown, program=program, max_backoff_secs=0.01, max_failures=MAX_FAILURES
    )


def worker_program(directory: Path, *dying: int) -> tuple[str, str]:
    (directory / "worker.py").write_text(f"DYING, SERVING = {dying}, {str(directory / 'serving')!r}\n{PROGRAM}")
    return sys.executable, str(directory / "worker.py")


@pytest.mark.anyio
async def test_the_server_ends_if_no_worker_can_be_kept_running(tmp_path: Path) -> None:
    program = worker_program(tmp_path, 0, 1)
    with capture_logs() as records, anyio.fail_after(PATIENCE_SECS):
        status = await quick(Shutdown(3_600.0), *program).run(no_hangups())
    assert status == 1
    ends = [record for record in records if "stopping the server" in record["event"]]
    restarts = [record["worker"] for record in records if record["event"] == "a worker died and is restarted"]
    assert ends
    for record in ends:  # more than MAX_FAILURES where the other one served at that moment
        assert record["status"] == 3
        assert record["failures"] >= MAX_FAILURES
        assert restarts.count(record["worker"]) == record["failures"] - 1


@pytest.mark.anyio
async def test_a_slot_is_retried_while_another_worker_serves(tmp_path: Path) -> None:
    program = worker_program(tmp_path, 1)
    shutdown = Shutdown(3_600.0)
    with capture_logs() as records:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(quick(shutdown, *program).run, no_hangups())
            await eventually(
                lambda: sum("restarted" in record["event"] for record in records) > 2 * MAX_FAILURES,
                what="many tries",
            )
            assert not any("stopping the server" in record["event"] for record in records)
            shutdown.request()


@pytest.mark.anyio
async def test_a_failed_process_start_is_logged_in_one_line() -> None:
    with capture_logs() as records, anyio.fail_after(PATIENCE_SECS):
        assert await quick(Shutdown(3_600.0), "/nowhere/python").run(no_hangups()) == 1
    failures = [record for record in records if record["event"] == "a worker's process cannot be started"]
    assert {record["reason"] for record in failures} == {"no such file or directory"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ConfigError("a key is wrong"), "the configuration was not applied"),
        (ValueError("a defect"), "reading the configuration again: failed"),
    ],
)
async def test_a_reload_that_fails_ends_nothing(tmp_path: Path, failure: Exception, said: str) -> None:
    async def hangup() -> AsyncIterator[signal.Signals]:
        yield signal.SIGHUP
        await anyio.sleep_forever()

    def reread() -> ServerConfig:
        raise failure

    shutdown = Shutdown(3_600.0)
    supervisor = Supervisor(CONFIG, reread, shutdown, program=worker_program(tmp_path))
    with capture_logs() as records:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run, hangup())
            await eventually((tmp_path / "serving").exists, what="a worker")
            assert [record["event"] for record in records if record["log_level"] == "error"] == [said]
            shutdown.request()


@pytest.mark.anyio
async def test_a_pause_of_the_supervisor_counts_as_one_check() -> None:
    """It counts checks and not time: after SIGSTOP and SIGCONT, or a suspended machine, no worker is killed."""
    looks: list[float] = []
    worker = Worker(0)

    async def look(secs: float) -> None:
        looks.append(secs)
        if len(looks) in (1, 4):
            worker.record_heartbeat(Heartbeat(listening=True, changes={}))

    await worker.wait_until_hung(look)
    assert len(looks) == 4 + MAX_MISSED_HEARTBEATS
