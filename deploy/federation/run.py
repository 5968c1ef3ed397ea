"""Serves three servers of a federation on this machine: north.test, south.test and east.test, until Ctrl-C.

Each has a private PostgreSQL and NATS and a key of its own, under `--data-dir`. They know each other by a map from names to
addresses instead of DNS. Usage: python deploy/federation/run.py [--data-dir DIR] [--port PORT]
"""

from __future__ import annotations

import argparse
import base64
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

NAMES = ("north.test", "south.test", "east.test")
START_SECS = 120.0
STOP_SECS = 30.0

NEXT = """
Three servers serve. A user of south.test joins a guild of north.test; in another terminal:

  {python} deploy/federation/demo.py --port {port}

or by hand, with NORTH={north} and SOUTH={south}:
  an invite of north.test is used at south.test as CODE@north.test:
  curl -sX POST $SOUTH/invites/CODE@north.test/accept -H "authorization: Bearer $TOKEN_OF_SOUTH"

To see what an owner that is away means, write here: stop north.test, and later: start north.test
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path(".data-federation"))
    parser.add_argument("--port", type=int, default=8090, help="of the first server; the others have the next ones")
    options = parser.parse_args()
    urls = {name: f"http://127.0.0.1:{options.port + at}" for at, name in enumerate(NAMES)}
    servers = {name: start(name, urls, options.data_dir) for name in NAMES}
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    problem = None
    try:
        for name in NAMES:
            if not wait_until_ready(urls[name], servers[name], stopping):
                if not stopping.is_set():
                    problem = f"{name} does not serve on {urls[name]}: the first of its lines above say why"
                return 0 if problem is None else 1
        print(
            NEXT.format(python=sys.executable, port=options.port, north=urls[NAMES[0]], south=urls[NAMES[1]]),
            flush=True,
        )
        asked: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        threading.Thread(target=read_commands, args=(asked,), daemon=True).start()
        ended: set[str] = set()
        while not stopping.wait(0.2):
            for name, server in servers.items():
                if server.poll() is not None and name not in ended:
                    ended.add(name)
                    print(f"{name} has ended with status {server.returncode}; the others serve", flush=True)
            while not asked.empty():
                command, name = asked.get()
                if command == "stop":
                    servers[name].send_signal(signal.SIGTERM)
                elif name in ended:
                    ended.discard(name)
                    servers[name] = start(name, urls, options.data_dir)
        return 0
    finally:
        for server in servers.values():
            server.send_signal(signal.SIGTERM)
        for server in servers.values():
            try:
                server.wait(STOP_SECS)
            except subprocess.TimeoutExpired:
                server.kill()
        if problem is not None:
            print(problem, file=sys.stderr)


def start(name: str, urls: dict[str, str], data_dir: Path) -> subprocess.Popen[str]:
    """Start one server, with its name before each line that it prints."""
    directory = data_dir / name
    directory.mkdir(parents=True, exist_ok=True)
    others = [f"{other}={url}" for other, url in urls.items() if other != name]
    environment = {
        **os.environ,
        "OPENGUILD_SERVER__SERVER_NAME": name,
        "OPENGUILD_SERVER__FEDERATION__SIGNING_KEY": key_of(directory),
        "OPENGUILD_SERVER__FEDERATION__MODE": "open",
        "OPENGUILD_SERVER__FEDERATION__BASE_URL": urls[name],
        "OPENGUILD_SERVER__FEDERATION__ALLOW_PRIVATE_ADDRESSES": "true",
        **{f"OPENGUILD_SERVER__FEDERATION__ADDRESSES__{at}": entry for at, entry in enumerate(others)},
    }
    port = urls[name].rpartition(":")[2]
    command = [
        str(Path(sys.executable).with_name("openguild-server")),
        "--embedded",
        "--data-dir",
        str(directory),
        "--port",
        port,
    ]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert server.stdout is not None
    threading.Thread(target=repeat_lines, args=(name, server.stdout), daemon=True).start()
    return server


def read_commands(asked: queue.SimpleQueue[tuple[str, str]]) -> None:
    """Hand on the lines `stop NAME` and `start NAME` of the terminal."""
    for line in sys.stdin:
        command, _, name = line.strip().partition(" ")
        if command in {"stop", "start"} and name in NAMES:
            asked.put((command, name))
        elif line.strip():
            print(f"write `stop NAME` or `start NAME`, with one of {', '.join(NAMES)}", flush=True)


def key_of(directory: Path) -> str:
    """Return the seed of the server's key, which is made once."""
    path = directory / "signing.key"
    if not path.exists():
        path.touch(0o600)
        path.write_text(base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode())
    return path.read_text().strip()


def repeat_lines(name: str, lines: IO[str]) -> None:
    for line in lines:
        print(f"{name}  {line}", end="", flush=True)


def wait_until_ready(url: str, server: subprocess.Popen[str], stopping: threading.Event) -> bool:
    """Wait for `/ready`. False: the server has ended, or this program is to end."""
    give_up = time.monotonic() + START_SECS
    while not stopping.wait(0.2):
        if server.poll() is not None or time.monotonic() > give_up:
            return False
        try:
            with urlopen(f"{url}/ready", timeout=2) as answer:
                if answer.status == 200:
                    return True
        except (URLError, OSError):
            continue
    return False


if __name__ == "__main__":
    sys.exit(main())
