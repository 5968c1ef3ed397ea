"""The shell of an on-call operator: deploy/oncall.sh, and a kubectl whose pods are the test's servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support.launcher import PYTHON_ENVIRONMENT
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import threading_pause

ONCALL = ROOT / "deploy/oncall.sh"
PROGRAM = f'exec "{sys.executable}" -m openguild_runtime.cli.entry_point "$@"'
COMMAND_SECS = 60.0


class OnCall:
    """`pods`: name -> server. `public`: the address that docs/runbooks.md calls https://api.openguild.com."""

    def __init__(self, directory: Path, pods: dict[str, ServerProcess], *, public: str = "") -> None:
        self._directory = directory / "oncall"
        self._public = public
        self.rollouts: dict[str, Callable[[], None]] = {}  # the cluster's action at `kubectl rollout undo` or `restart`
        programs = self._directory / "bin"
        programs.mkdir(parents=True)
        (self._directory / "home").mkdir()
        self._write(programs / "openguild-server", f"#!/bin/sh\n{PROGRAM}\n")
        stand_in = Path(__file__).with_name("kubectl.py")
        self._write(programs / "kubectl", f'#!/bin/sh\nexec "{sys.executable}" -S "{stand_in}" "$@"\n')
        self.show(pods)

    def show(self, pods: dict[str, ServerProcess]) -> None:
        """Make these the pods of the cluster."""
        state = {
            "public": self._public,
            "rollout": str(self._directory / "rollout"),
            "pods": {
                name: {
                    "port": server.port,
                    "log": str(server.log_path),
                    "environment": {f"OPENGUILD_SERVER__{key}": str(value) for key, value in server.settings.items()},
                    "directory": str(server.log_path.parent),
                }
                for name, server in pods.items()
            },
        }
        (self._directory / "state.json").write_text(json.dumps(state))

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def run(self, command: str, **filled: object) -> str:
        """Run a command of docs/runbooks.md, with its `<places>` filled in, and return its output. Raises if it fails."""
        for place, value in filled.items():
            command = command.replace(f"<{place}>", str(value))
        command = command.replace("https://api.openguild.com", self._public)
        left = re.findall(r"<[a-z ]+>", command)
        assert not left, f"not filled in: {left}"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OPENGUILD_", "PG"))
        } | PYTHON_ENVIRONMENT
        environment |= {
            "PATH": f"{self._directory / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self._directory / "home"),
            "ONCALL_STATE": str(self._directory / "state.json"),
        }
        ended = threading.Event()
        cluster = threading.Thread(target=self._roll_out, args=(ended,))
        cluster.start()
        try:
            done = subprocess.run(
                ["bash", "-c", f". {ONCALL} prod\n{command}"], env=environment, cwd=self._directory, text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_SECS,
            )  # fmt: skip
        finally:
            ended.set()
            cluster.join()
        self.status = done.returncode
        return done.stdout

    def _roll_out(self, ended: threading.Event) -> None:
        """Carry out rollouts: a file names the requested one, and is removed when it is done."""
        asked = self._directory / "rollout"
        while not ended.is_set():
            if asked.exists():
                self.rollouts[asked.read_text()]()
                asked.unlink()
            threading_pause(0.02)
