"""Shutdown of a process: deadlines, a second signal, and the watchdog."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

import anyio
import pytest

from openguild_runtime.process import shutdown as moments
from openguild_runtime.process.shutdown import Shutdown
from openguild_runtime.process.watchdog import TIMED_OUT
from openguild_runtime.system.threads import start_thread, wait_for_thread
from tests.support.busy import fair_secs
from tests.support.server import ROOT
from tests.support.waiting import PATIENCE_SECS

pytestmark = pytest.mark.anyio

PROGRAM = """
import time, anyio
from openguild_runtime.observability import logs
from openguild_runtime.process.shutdown import Shutdown, handle_signals
from openguild_runtime.process.watchdog import exit_process
logs.configure("json", "info")
async def main():
    shutdown = Shutdown(0)
    async with handle_signals(shutdown):
        print("begun", flush=True)
        await shutdown.wait_requested()
        %s
    shutdown.finish(0)
    return 0
exit_process(anyio.run(main))
"""


CAUGHT = """
import os, signal, anyio
from openguild_runtime.process.shutdown import Shutdown, handle_signals
from openguild_runtime.process.signals import exit_on_sigterm
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1_000):
            pass
exit_on_sigterm(0)
Finalized()
async def main():
    shutdown = Shutdown(0)
    async with handle_signals(shutdown):
        await anyio.sleep_forever()
    print(shutdown.requested.is_set(), flush=True)
anyio.run(main)
os._exit(0)
"""


def ended(body: str) -> tuple[int, float, str]:
    """The exit status of a program that does `body` after a SIGTERM, how long it took, and its log."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM % body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    started = fair_secs()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_SECS)
    return process.returncode, fair_secs() - started, log


def test_a_sigterm_whose_exit_was_caught_ends_the_process_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CAUGHT], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECS, check=False
    )
    assert "SystemExit" in done.stderr, "a finalizer cannot be left by an exception"
    assert (done.returncode, done.stdout) == (0, "True\n")


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("time.sleep(30)", ["__main__.main"]),
        ("\n        with shutdown.deadline('a part', 0.5): time.sleep(30)", ["a part"]),
        ("\n        with anyio.CancelScope(shield=True): await anyio.sleep(30)", ["process.shutdown.Shutdown.follow"]),
    ],
    ids=["a held loop", "a part that holds it", "a shield"],
)
def test_a_hung_shutdown_is_ended_and_its_cause_logged(body: str, left: list[str]) -> None:
    status, secs, log = ended(body)
    assert status == TIMED_OUT
    assert secs < moments.SHUTDOWN_SECS + 0.5
    said = json.loads(log.splitlines()[-1])
    assert (said["message"], set(left) <= set(said["left"])) == ("the process did not exit in time", True)


def test_a_foreign_thread_does_not_block_the_exit() -> None:
    body = "\n        import threading; threading.Thread(target=time.sleep, args=(30,)).start()"
    status, secs, log = ended(body)
    assert (status, secs < moments.SHUTDOWN_SECS) == (0, True), log


def test_a_hung_part_is_abandoned_with_status_zero() -> None:
    status, secs, log = ended("\n        with shutdown.deadline('a part', 0.7): await anyio.sleep(30)")
    assert (status, secs < moments.SHUTDOWN_SECS) == (0, True)
    assert [json.loads(line).get("part") for line in log.splitlines()][-1] == "a part"


async def test_a_second_signal_moves_every_deadline() -> None:
    shutdown = Shutdown(3_600)
    shutdown._watchdog.watch = lambda until, status: None  # type: ignore[method-assign]  # it would end the tests
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shutdown.wait_requested)
        tasks.start_soon(shutdown.wait_until, moments.PARTS_SECS)
        await anyio.wait_all_tasks_blocked()
        shutdown.request()
        tasks.start_soon(shutdown.close, "a part", anyio.sleep_forever)
        with shutdown.deadline("another part", moments.PARTS_SECS) as part:
            assert part.deadline > anyio.current_time() + 3_000
            before = anyio.current_time()
            shutdown.request()
            moved = part.deadline - (moments.FORCED_SECS - moments.PARTS_SECS)
            assert before <= moved <= anyio.current_time()
    # all have ended, an hour before their first deadline


async def test_cancellation_does_not_wait_for_a_thread() -> None:
    release = threading.Event()
    with anyio.move_on_after(0.05) as limit:
        work = start_thread(release.wait)
        await wait_for_thread(work)
    assert limit.cancelled_caught
    assert not work.done()
    release.set()


async def test_an_exception_on_the_thread_is_raised() -> None:
    def fail() -> None:
        raise OSError("no such thing")

    with pytest.raises(OSError, match="no such thing"):
        await wait_for_thread(start_thread(fail))
