"""The examples of docs/embedding.md run as they are documented, and each stays under 80 lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.raw import HOST, ask
from tests.support.server import ROOT, ServerProcess

EXAMPLES = ROOT / "docs/examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def running(name: str) -> Iterator[int]:
    """The port of a started example."""
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), "0"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.kill()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_is_short_and_shown_in_the_guide(path: Path) -> None:
    assert path.read_text().count("\n") < 80
    assert path.name in (ROOT / "docs/embedding.md").read_text() + (ROOT / "docs/client.md").read_text()


def test_threads() -> None:
    with running("threads_server.py") as port:
        assert httpx.get(f"http://127.0.0.1:{port}/tea", trust_env=False, verify=False).text == "you asked for /tea\n"
        with connect(f"ws://127.0.0.1:{port}/echo", compression=None, proxy=None) as stream:
            for text in ("one", "zwölf", "x" * 60_000):
                stream.send(text)
                assert stream.recv(timeout=10) == text
        with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{port}/none", proxy=None):
            pass
        assert refused.value.response.status_code == 404
        assert ask(port, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n").status == 400


def test_trio() -> None:
    with running("trio_server.py") as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/tea", trust_env=False, verify=False)
        assert answer.json() == {"path": "/tea", "request_id": answer.headers["x-request-id"]}
        with connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None) as stream:
            stream.send("shout")
            assert stream.recv(timeout=10) == "SHOUT"


def test_an_operation_by_hand() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "operation_by_hand.py")],
        capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT,
    )  # fmt: skip
    *steps, last = done.stdout.splitlines()
    assert steps == [f"it asks for {name}" for name in ("FindSession", "FindChannelAccess", "AppendEvent")]
    status, _, body = last.partition(" ")
    assert (status, json.loads(body)["sequence"]) == ("200", 42)


def test_the_client_chats(server: ServerProcess) -> None:
    for _ in range(2):  # accounts that exist already do not stop it
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "client_chat.py"), server.base_url],
            capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "bob reads 3 bye"


@pytest.mark.parametrize("name", ["embedding.md", "client.md"])
def test_the_python_of_the_guides_runs(name: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), {})
