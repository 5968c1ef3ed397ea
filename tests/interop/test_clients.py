"""Clients that we did not write: aiohttp, node's ws and fetch, a real browser. (`websockets` and httpx are used everywhere.)"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import aiohttp
import pytest

from tests.support.chat import User, receive, texts
from tests.support.server import ServerProcess

ROOT = Path(__file__).parent
NODE_MODULES = Path(__file__).resolve().parents[2] / "build" / "interop"


@pytest.mark.anyio
async def test_aiohttp(server: ServerProcess, alice: User, channel: str) -> None:
    async with aiohttp.ClientSession(server.base_url, headers=alice.auth) as session:
        for text in ("one", "zwölf", "\U0001f600" * 100):
            async with session.post(f"/client/v1/channels/{channel}/messages", json={"content": text}) as answer:
                assert answer.status == 200, await answer.text()
        async with session.ws_connect(f"/client/v1/channels/{channel}/ws?since=0") as stream:
            frames = [await stream.receive_json(timeout=10) for _ in range(3)]
            await stream.ping()
            await stream.send_json({"type": "ping", "ts": 1})
            alice.say(channel, "live")
            frames.append(await stream.receive_json(timeout=10))
            await stream.close()
            assert stream.close_code == 1000
    assert texts(frames) == ["one", "zwölf", "\U0001f600" * 100, "live"]


@pytest.mark.anyio
async def test_aiohttp_with_a_body_in_pieces(server: ServerProcess, alice: User, channel: str) -> None:
    async def body() -> Any:
        for part in (b'{"content":', b'"in ', b'pieces"}'):
            yield part

    headers = alice.auth | {"content-type": "application/json"}
    async with (
        aiohttp.ClientSession(server.base_url, headers=headers) as session,
        session.post(f"/channels/{channel}/messages", data=body(), expect100=True) as answer,
    ):
        assert answer.status == 200, await answer.text()
    assert texts(alice.history(channel)) == ["in pieces"]


@pytest.fixture(scope="session")
def node_ws() -> Path:
    """A directory where node finds `ws`."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node or npm on this machine")
    if not (NODE_MODULES / "node_modules/ws").exists():
        NODE_MODULES.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "ws@8"]
        if subprocess.run(command, cwd=NODE_MODULES, check=False, timeout=120).returncode != 0:
            pytest.skip("npm could not install ws")
    return NODE_MODULES


def test_node(server: ServerProcess, alice: User, channel: str, node_ws: Path) -> None:
    alice.say(channel, "before")
    done = subprocess.run(
        ["node", ROOT / "client.mjs", server.base_url, alice.token, channel],
        env={**os.environ, "NODE_PATH": str(node_ws / "node_modules")}, cwd=node_ws,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "texts": ["before", "from node"], "pong": True, "close": 1000, "subprotocol": "openguild.v1", "status": 200,
    }  # fmt: skip


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server",
]  # fmt: skip


@pytest.fixture
def page(server: ServerProcess, alice: User, channel: str) -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """Serves browser.html on another origin; what the page reports comes out of the queue."""
    reports: Queue[dict[str, Any]] = Queue()
    settings = {"api": server.base_url, "token": alice.token, "channel": channel}
    html = (ROOT / "browser.html").read_text().replace("SETTINGS", json.dumps(settings)).encode()

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(html)

        def do_POST(self) -> None:
            reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """The test's output is not the place for it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        yield f"http://localhost:{pages.server_port}/", reports
        pages.shutdown()
        thread.join()


def test_chromium_on_another_origin_obeys_the_list(
    page: tuple[str, Queue[dict[str, Any]]], alice: User, channel: str, tmp_path: Path
) -> None:
    """Preflight, bearer header, token by subprotocol, typed errors: what a web client needs."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    alice.say(channel, "before")
    url, reports = page
    with (tmp_path / "browser.log").open("wb") as log:
        browser = subprocess.Popen(
            [program, *CHROMIUM, f"--user-data-dir={tmp_path}/profile", "--remote-debugging-port=0", url],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        report = reports.get(timeout=60)
    finally:
        os.killpg(browser.pid, 9)
        browser.wait()
    assert report == {
        "me": alice.name, "posted": 200, "replayed": True, "texts": ["before", "from a browser"], "subprotocol": "openguild.v1",
        "refused": 401, "error": "unauthorized", "requestId": True, "closed": 1000, "badToken": 1006,
    }  # fmt: skip
    assert texts(alice.history(channel)) == ["before", "from a browser"]
    with alice.stream(channel, since=1) as stream:
        assert texts(receive(stream, 1)) == ["from a browser"]
