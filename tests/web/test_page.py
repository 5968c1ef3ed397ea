"""The page in docs/web: the files that `make web` serves, and two users with it in two browsers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chat import User
from tests.web.control import control_port, controlled_server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NPM = ROOT / "build/npm"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def serve_module() -> Any:
    spec = importlib.util.spec_from_file_location("serve", ROOT / "docs/web/serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def page_server(api: str) -> Iterator[str]:
    """Serve the page for the server at `api`; yield its address."""
    with serve_module().web_server("127.0.0.1", 0, api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, ROOT / "docs/web/serve.py", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"cannot listen on 127.0.0.1:{port} (Address already in use): end what listens there, "
        "or choose another port, such as: make web WEB_PORT=8082\n"
    )


def test_only_the_page_is_served_and_under_a_strict_policy() -> None:
    with (
        page_server("http://127.0.0.1:8080") as url,
        httpx.Client(base_url=url, trust_env=False, verify=False) as client,
    ):
        for path, kind in (
            ("/", "text/html"), ("/openguild.js", "text/javascript"), ("/page/style.css", "text/css"),
            ("/page/main.js?x=1", "text/javascript"), ("/settings.json", "application/json"),
        ):  # fmt: skip
            answer = client.get(path)
            assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
            policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
            assert policy["connect-src"] == "'self' http://127.0.0.1:8080 ws://127.0.0.1:8080"
            assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'", "nothing inline"
            assert policy["require-trusted-types-for"] == "'script'", "no innerHTML"
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert client.get("/settings.json").json() == {"api": "http://127.0.0.1:8080"}
        for path in ("/serve.py", "/package.json", "/../tables.py", "/%2e%2e/tables.py", "/page/", "/nothing"):
            assert client.get(path).status_code == 404
        assert client.head("/").content == b""
        assert client.post("/").status_code == 501


@pytest.mark.parametrize("api", ["", "127.0.0.1:8080", "ftp://a", "http://a/b", "http://user@a", "http://"])
def test_what_is_no_server_is_refused(api: str) -> None:
    with pytest.raises(ValueError, match="not a server's address"):
        serve_module().origin_of(api)


def test_the_page_has_nothing_inline() -> None:
    html = (ROOT / "docs/web/index.html").read_text()
    assert html.count("<script") == html.count('<script type="module" src="')
    assert "style=" not in html
    assert "<style" not in html
    sources = "".join(path.read_text() for path in (ROOT / "docs/web").rglob("*.js"))
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in sources


@pytest.fixture(scope="session")
def playwright() -> Path:
    """Return the directory in which node finds playwright-core, of the release in deploy/ci/npm_tools.txt."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node or npm on this machine")
    if not (NPM / "node_modules/playwright-core").exists():
        wanted = (ROOT / "deploy/ci/npm_tools.txt").read_text().split()
        NPM.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix", NPM, *wanted]
        if subprocess.run(command, check=False, timeout=110).returncode != 0:
            pytest.skip("npm could not install playwright-core")
    return NPM


def run(script: str, node_modules: Path, home: Path, **environment: str) -> None:
    """Run a script that drives browsers, to its end."""
    chromium = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    done = subprocess.run(
        ["node", "--experimental-websocket", "--no-warnings", HERE / script],
        env=os.environ | environment | {"NODE_MODULES": str(node_modules), "CHROMIUM": chromium, "HOME": str(home)},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]


@pytest.mark.timeout(240)
def test_two_people_chat_in_two_browsers(
    playwright: Path, module_database: str, module_directory: Path, tmp_path: Path
) -> None:
    """Set SCREENSHOTS to a directory to keep screenshots."""
    with (
        controlled_server(module_database, module_directory) as controlled,
        control_port(controlled) as port,
        page_server(controlled.server.base_url) as page,
    ):
        run("two_browsers.mjs", playwright, tmp_path, PAGE=page, CONTROL=f"http://127.0.0.1:{port}")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("script", ["everyday", "away", "devices", "trouble", "limits"])
def test_what_people_meet_on_the_page(node: str, playwright: Path, alice: User, tmp_path: Path, script: str) -> None:
    with page_server(alice.chat.base_url) as page:
        run(f"{script}.mjs", playwright, tmp_path, PAGE=page, API=alice.chat.base_url)


@pytest.mark.parametrize("what", ["chat", "history", "outbox", "typing", "unread"])
def test_what_is_shown_of_the_open_channel(node: str, what: str) -> None:
    command = [node, "--no-warnings", "--test-reporter=spec", HERE / f"{what}.test.mjs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
