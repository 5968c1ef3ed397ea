"""The commands of docs/tutorials/ do what the tutorials say, on a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.docs.blocks import ROOT, blocks_of
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

TUTORIALS = ROOT / "docs/tutorials"
NEEDED = [name for name in ("bash", "curl", "jq") if shutil.which(name) is None]


def run_commands(name: str, server: ServerProcess, *more: str) -> list[str]:
    """Run the commands of a tutorial as one script that stops at the first failure; return its output lines."""
    commands = [block.code for block in blocks_of(TUTORIALS / name) if block.language == "bash"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -euo pipefail", *commands, *more])],
        cwd=server.log_path.parent, capture_output=True, text=True, timeout=90, check=False,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OPENGUILD_SERVER__PORT": str(server.port),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(bool(NEEDED), reason=f"no {', '.join(NEEDED)} on this machine")
def test_a_client_author_and_an_operator_follow_their_tutorials(
    module_database: str, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    limits = {"SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW": 10, "ADMIN_SOCKET": tmp_path / ".data/admin.sock"}
    with ServerProcess(tmp_path, DATABASE_URL=module_database, NATS__URL=nats_server.url, **limits).start() as server:
        lines = run_commands("client.md", server, 'echo "$host" "$channel" "$bob"')
        assert '["bob","Hello Alice",2,["👋"]]' in lines
        assert '[3,"message.edited","Hello Alice"]' in lines
        assert "pongbot: pong, alice" in lines
        follow(lines[-1].split())

        lines = run_commands("operator.md", server)
        assert [line for line in lines if line.isdigit()] == ["401"] * 10 + ["429"] * 2
        assert "ok   ready" in " ".join(lines)
        assert 'openguild_messaging_rejections_total{reason="login_rate_limit"} 2.0' in lines
        assert any("login_rate_limit: too many attempts" in line for line in lines), "admin why"
        assert server.process is not None
        wait_until(lambda: server.process is None or server.process.poll() is not None, what=server.tail)
        assert server.stop() == 0
        assert '"rejection":"login_rate_limit"' in server.log_path.read_text()


def follow(arguments: list[str]) -> None:
    """Run the client tutorial's program until it has shown the log."""
    [program] = [block.code for block in blocks_of(TUTORIALS / "client.md") if block.language == "python"]
    command = [sys.executable, "-u", "-c", program, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            shown = [process.stdout.readline() for _ in range(4)]
        finally:
            process.kill()
    assert [line.split()[:2] for line in shown[:2]] == [["1", "message"], ["2", "message"]]
    assert "Hello Alise" in shown[1]
