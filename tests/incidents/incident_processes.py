"""The server's process: killed workers, a stalled one, one whose log nobody reads, and one that is gone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openguild_runtime.embedded import EmbeddedNats
from tests.incidents.conftest import Incident, pod, repeated, serving
from tests.support.oncall import OnCall
from tests.support.prometheus import Prometheus
from tests.support.raw import RawClient
from tests.support.server import ServerProcess
from tests.support.waiting import threading_pause, wait_until

REQUEST = b"GET /version HTTP/1.1\r\nHost: x\r\nx-request-id: %s\r\n\r\n" % (b"x" * 60)
REQUESTS = 250  # on one connection, before any answer is read
STOPPED_SECS = 0.3


def children(server: ServerProcess) -> list[int]:
    assert server.process is not None
    return [
        int(pid) for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    ]


def test_a_worker_is_killed_again_and_again(
    database_url: str, nats_server: EmbeddedNats, tmp_path: Path, walk: Callable[..., Incident]
) -> None:
    """The kernel kills a worker that has no memory left."""
    server = pod(tmp_path, "--workers", "2", DATABASE_URL=database_url, NATS__URL=nats_server.url)

    def workers_up() -> int:
        return incident.try_row("metrics openguild_worker_up").count("} 1")

    with server.start():
        incident = walk("worker-down", server)
        wait_until(lambda: workers_up() == 2, what="both workers")
        _, kept = sorted(children(server))

        def kill() -> None:
            for pid in children(server):
                if pid != kept:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

        with repeated(kill):
            told = incident.fires("OpenGuildWorkerDown", instance=f"127.0.0.1:{server.port}")
            assert told["labels"]["worker"] in {"0", "1"}
            said = incident.ask()
            assert '"message":"a worker died and is restarted"' in said
            assert '"status":-9' in said
            assert workers_up() == 1
        incident.ends("OpenGuildWorkerDown")
        assert workers_up() == 2
        assert server.stop() == 0


@contextmanager
def held_up(server: ServerProcess) -> Iterator[None]:
    """Stop the process for a moment again and again, as a container's CPU limit does."""
    assert server.process is not None
    process = server.process

    def hold() -> None:
        process.send_signal(signal.SIGSTOP)
        threading_pause(STOPPED_SECS)
        process.send_signal(signal.SIGCONT)

    with repeated(hold):
        yield


def fill(server: ServerProcess) -> None:
    """Send requests until the log has more lines than its buffer."""
    with RawClient(server.port) as client:
        while not server.metric("openguild_log_lines_dropped_total"):
            client.send(REQUEST * REQUESTS)
            for _ in range(REQUESTS):
                assert client.answer().status == 200


def measured(top: str) -> tuple[int, int]:
    """Return the delay of the event loop in milliseconds and the percentage of a core, as `og admin top` shows them."""
    late, cpu = re.search(r"event loop late by up to (\d+) ms", top), re.search(r"cpu (\d+)%", top)
    assert late is not None
    assert cpu is not None
    return int(late[1]), int(cpu[1])


def dropped_lines(said: str) -> list[int]:
    """Return the gaps in the log."""
    return [int(count) for count in re.findall(r'"dropped":(\d+)', said)]


def test_the_loop_is_held_up_and_nobody_reads_the_log(
    database_url: str, tmp_path: Path, walk: Callable[..., Incident]
) -> None:
    server = pod(tmp_path, DATABASE_URL=database_url)
    reading, writing = os.pipe()
    with server.log_path.open("ab") as log:
        collector = subprocess.Popen(["cat"], stdin=reading, stdout=log)
    try:
        with server.start(stderr=writing):
            stalls, dropped = walk("loop-stalls", server), walk("log-dropped", server)
            collector.send_signal(signal.SIGSTOP)
            fill(server)
            dropped.fires("OpenGuildLogDropped", instance=f"127.0.0.1:{server.port}")
            assert re.search(r"openguild_log_lines_dropped_total [1-9]", dropped.ask())
            assert '"log": "warn"' in dropped.mend()
            collector.send_signal(signal.SIGCONT)
            with held_up(server):
                stalls.fires("OpenGuildLoopStalls", instance=f"127.0.0.1:{server.port}")
                late, cpu = measured(stalls.ask())
                assert late >= 1000 * STOPPED_SECS
                assert cpu < 50, "the host's CPU is taken"
            dropped.ends("OpenGuildLogDropped")
            assert dropped_lines(dropped.ask()) == [server.metric("openguild_log_lines_dropped_total")]
            assert '"log": "info"' in dropped.try_row("og admin log info")
            stalls.ends("OpenGuildLoopStalls")
            assert server.stop() == 0
    finally:
        for descriptor in (reading, writing):
            os.close(descriptor)
        collector.wait()


def test_a_server_is_gone(
    database_url: str, prometheus: Prometheus, tmp_path: Path, walk: Callable[..., Incident]
) -> None:
    """Its new configuration is invalid; cron probes it from outside."""
    server = pod(tmp_path, DATABASE_URL=database_url)
    results = tmp_path / "probe.prom"
    with server.start(), serving(results) as scraped:
        oncall = OnCall(tmp_path, {"openguild-server-0": server}, public=server.base_url)

        def cron() -> None:
            oncall.run(f"openguild-server probe https://api.openguild.com --prometheus {results}")

        cron()
        prometheus.watch(f"127.0.0.1:{scraped}")
        try:
            down, check = walk("down", server, oncall=oncall), walk("synthetic-check", oncall=oncall)
            server.stop()
            server.settings["DATABASE__POOL_SIZE"] = "many"
            server.start(ready=False)
            cron()
            down.fires("OpenGuildDown", instance=f"127.0.0.1:{server.port}")
            said = down.ask()
            assert "CrashLoopBackOff" in said
            assert "database.pool_size: is not an integer; write one, such as 10" in said.splitlines()[-1]
            check.fires("OpenGuildProbeFails", step="live")
            assert check.ask().startswith("FAIL live ")
            server.settings["DATABASE__POOL_SIZE"] = "10"
            server.start()
            for said in (down.try_row("og probe http"), check.ask()):
                assert "FAIL" not in said
                assert said.count("ok   ") == 6
            results.write_text(
                re.sub(r"(?m)^(openguild_probe_timestamp_seconds\S*) .*$", r"\1 1.7e9", results.read_text())
            )
            down.ends("OpenGuildDown")
            check.fires("OpenGuildProbeStale")
            cron()
            check.ends("OpenGuildProbeFails", "OpenGuildProbeStale")
            prometheus.forget(f"127.0.0.1:{scraped}", f"127.0.0.1:{server.port}")
            down.fires("OpenGuildNoTargets")
            prometheus.watch(f"127.0.0.1:{scraped}", f"127.0.0.1:{server.port}")
            down.ends("OpenGuildNoTargets")
        finally:
            prometheus.forget(f"127.0.0.1:{scraped}")
        assert server.stop() == 0
