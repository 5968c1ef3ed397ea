"""`admin` with several workers, some of which do not answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from openguild_runtime.cli.admin_client import run_admin
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.server.failures import CommandFailed
from openguild_runtime.system.unix_socket import worker_path


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="og-") as directory:
        yield Path(directory) / "admin.sock"


def leave_behind(path: Path) -> None:
    """A socket file without a listener, as a killed process leaves it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@contextmanager
def answering(path: Path, answer: object) -> Iterator[None]:
    """A server that answers one request."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4_096)
                client.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def ask(path: Path, what: str = "show") -> int:
    return run_admin(ServerConfig.model_validate({"admin_socket": str(path)}), {"ask": what})


def test_every_worker_is_asked_and_missing_ones_are_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_behind(path)
    leave_behind(worker_path(path, 0))
    with answering(worker_path(path, 2), {"settings": 2}), answering(worker_path(path, 10), {"settings": 10}):
        assert ask(path) == 1
    assert [json.loads(text + "}") for text in capsys.readouterr().out.split("}\n") if text] == [
        {"worker": 0, "error": "does not listen"},
        {"worker": 2, "settings": 2},
        {"worker": 10, "settings": 10},
    ]


def test_the_first_worker_that_drains_is_the_only_one_asked(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its supervisor drains all workers; a second request would force them to exit."""
    for number in (0, 3):
        leave_behind(worker_path(path, number))
    with answering(worker_path(path, 2), {"draining": True}):
        assert ask(path, "drain") == 0
    assert json.loads(capsys.readouterr().out) == {"worker": 2, "draining": True}


def test_one_server_answers_for_itself(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_behind(worker_path(path, 0))
    with answering(path, {"settings": 1}):
        assert ask(path) == 0
    assert json.loads(capsys.readouterr().out) == {"settings": 1}


def test_texts_of_other_servers_do_nothing_to_the_terminal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"server": "evil.test", "answer": "\x9b2J\x1b]0;owned\x07 \u202e"}
    with answering(path, told):
        assert ask(path) == 0
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == told


def test_a_refused_connection_is_reported(path: Path) -> None:
    for left in ((), (path, worker_path(path, 3))):
        for each in left:
            leave_behind(each)
        with pytest.raises(CommandFailed, match="no server listens"):
            ask(path)
