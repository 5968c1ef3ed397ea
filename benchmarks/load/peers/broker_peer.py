"""Servers not written in Python: nchan in nginx, mosquitto and nats-server, each with a WebSocket listener.

`python broker_peer.py nchan|mosquitto|nats` runs one, and publishes to it. The CPU is that of the server's processes.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import message

NCHAN_MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
NCHAN = """
load_module {module};
daemon off; worker_processes 1; worker_rlimit_nofile 100000; pid {directory}/pid; error_log {directory}/log; {user}
events {{ worker_connections 50000; }}
http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
  uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e; nchan_max_reserved_memory 256M;
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location = /pub {{ nchan_publisher; nchan_channel_id x; nchan_message_buffer_length 512; keepalive_requests 1000000; }}
    location / {{ nchan_subscriber websocket; nchan_channel_id x; nchan_subscriber_first_message newest; }} }} }}
"""
MOSQUITTO = """
listener {port} 127.0.0.1
protocol websockets
listener {inner} 127.0.0.1
allow_anonymous true
max_queued_messages 0
{user}
"""
NATS = 'listen: "127.0.0.1:{inner}"\nwebsocket {{ listen: "127.0.0.1:{port}", no_tls: true }}\nmax_pending: 256MB\n'


def free_port() -> int:
    """Return a port that is free on all addresses, as mosquitto needs it, even if a former peer's ports are in TIME_WAIT."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class Publisher:
    """A connection to publish messages. `wrap` returns the bytes that publish one."""

    def __init__(self, port: int, hello: bytes, wrap: Callable[[bytes], bytes], *, answered: bool) -> None:
        self._socket = connected(port)
        self._wrap = wrap
        self._answered = answered
        if hello:
            self._socket.sendall(hello)
            self._socket.recv(65_536)

    def publish(self, data: bytes) -> None:
        self._socket.sendall(self._wrap(data))
        if self._answered:
            self._socket.recv(65_536)


def connected(port: int) -> socket.socket:
    """Connect as soon as the server listens."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def mqtt_publish(data: bytes) -> bytes:
    body = b"\0\1x" + data
    assert 128 <= len(body) < 16_384
    return bytes((0x30, len(body) & 127 | 128, len(body) >> 7)) + body


def start(kind: str, directory: Path) -> tuple[list[str], int, Callable[[], Publisher]]:
    """Write the configuration. Return the command, the subscribers' port, and a function that creates the publisher."""
    port, inner, configuration = free_port(), free_port(), directory / "configuration"
    user = "user root" if os.geteuid() == 0 else ""  # a change of user would undo `end_with_parent`
    match kind:
        case "nchan":
            user += ";" if user else ""
            configuration.write_text(NCHAN.format(module=NCHAN_MODULE, directory=directory, port=port, user=user))
            command = ["nginx", "-c", str(configuration), "-p", str(directory)]
            head = b"POST /pub HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
            return command, port, lambda: Publisher(port, b"", lambda data: head % len(data) + data, answered=True)
        case "mosquitto":
            configuration.write_text(MOSQUITTO.format(port=port, inner=inner, user=user))
            hello = b"\x10\x0d\0\4MQTT\4\2\0\0\0\1p"
            return (
                ["mosquitto", "-c", str(configuration)],
                port,
                lambda: Publisher(inner, hello, mqtt_publish, answered=False),
            )
        case _:
            configuration.write_text(NATS.format(port=port, inner=inner))
            wrap = lambda data: b"PUB x %d\r\n%b\r\n" % (len(data), data)  # noqa: E731  # as the others
            hello = b'CONNECT {"verbose":false}\r\nPING\r\n'
            return (
                ["nats-server", "-c", str(configuration)],
                port,
                lambda: Publisher(inner, hello, wrap, answered=False),
            )


def family_cpu_secs(pid: int) -> float:
    """Return the CPU seconds of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(time.clock_gettime(~int(each) << 3 | 2) for each in (pid, *children))


def settled_cpu_secs(pid: int) -> float:
    """Wait until the server is idle, and return its CPU seconds."""
    spent = family_cpu_secs(pid)
    while True:
        time.sleep(0.2)
        now = family_cpu_secs(pid)
        if now - spent < 0.002:
            return now
        spent = now


def end_with_parent() -> None:
    """Have the kernel end this process when its parent is killed: prctl(PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # runs `finally`
    with tempfile.TemporaryDirectory() as name:
        command, port, make = start(sys.argv[1], Path(name))
        server = subprocess.Popen(
            command,
            stdout=sys.stderr,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # this process has no threads
        )
        try:
            publisher = make()
            connected(port).close()
            print(f"ready {port}", flush=True)
            for line in sys.stdin:
                _, rate, count, burst, size = line.split()
                started, used = time.monotonic(), settled_cpu_secs(server.pid)
                due = time.monotonic()
                for _ in range(int(count)):
                    for _ in range(int(burst)):
                        publisher.publish(message(int(size)))
                    due += 1 / float(rate)
                    time.sleep(max(0.0, due - time.monotonic()))
                spent = settled_cpu_secs(server.pid) - used
                print(json.dumps({"cpu": spent, "wall": time.monotonic() - started}), flush=True)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
