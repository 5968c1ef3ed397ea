"""haproxy before the pods, told of them as an ingress controller is told of a Service's endpoints."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pods.pod import Pod
from tests.support.waiting import free_port, wait_until

SLOTS = 12
PORT = 8080
CONFIGURATION = f"""
global
  maxconn 8000
  stats socket {{directory}}/haproxy.sock mode 600 level admin
defaults
  mode http
  option forwardfor
  option redispatch
  retries 3
  retry-on conn-failure empty-response 503
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend front
  bind 127.0.0.1:{{port}}
  default_backend pods
backend pods
  balance roundrobin
  server-template pod 1-{SLOTS} 127.0.0.1:1 disabled
"""


class Endpoints:
    """Which pods get new connections; open ones stay where they are."""

    def __init__(self, control: Path, port: int) -> None:
        self.port = port
        self._control = control
        self._slots: dict[str, int] = {}
        self._lock = threading.Lock()

    def changed(self, pod: Pod, is_ready: bool) -> None:
        """Take a pod in, or out."""
        with self._lock:
            slot = self._slots.setdefault(pod.id, len(self._slots) + 1)
            if is_ready:
                self._say(f"set server pods/pod{slot} addr {pod.address} port {PORT}")
            self._say(f"set server pods/pod{slot} state {'ready' if is_ready else 'drain'}")

    def _say(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._control))
            control.sendall(f"{command}\n".encode())
            answer = b""
            while data := control.recv(4_096):
                answer += data
        assert b"nknown" not in answer, answer
        assert b"o such" not in answer, answer


@contextmanager
def endpoints(directory: Path) -> Iterator[Endpoints]:
    """Run haproxy with no pod. Raises RuntimeError if it is not installed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise RuntimeError("haproxy is not installed")
    port, file = free_port(), directory / "haproxy.conf"
    file.write_text(CONFIGURATION.format(directory=directory, port=port))
    with subprocess.Popen([program, "-f", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until((directory / "haproxy.sock").exists, what="haproxy")
            yield Endpoints(directory / "haproxy.sock", port)
        finally:
            process.terminate()
