"""A server that fails while it starts says why and exits with a status that restarts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.server import ServerProcess

PROGRAM = """
import sys
from openguild_runtime.cli.entry_point import main
from openguild_runtime.server.app import Server

def fail(self, path):
    raise {failure}

Server._start_admin = fail
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("OSError(98, 'Address already in use')", "serve: Address already in use"),
        ("ValueError('a defect')", "ValueError: a defect"),
    ],
)
def test_what_fails_between_the_checks_and_serving_is_told(tmp_path: Path, failure: str, said: str) -> None:
    server = ServerProcess(tmp_path, "--storage", "memory")
    server.program = ("-c", PROGRAM.format(failure=failure))
    with server.start(ready=False):
        assert server.process is not None
        assert server.process.wait(60) == 1
        assert said in server.log_path.read_text()
        assert "stopped" not in server.log_path.read_text()
