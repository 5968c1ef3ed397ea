"""nginx and haproxy before several replicas, configured as docs/operations.md shows."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import free_port, wait_until

NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 8000; }}
http {{
  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream replicas {{ {servers} keepalive 32; }}
  server {{ listen 127.0.0.1:{own};
    location / {{ proxy_pass http://replicas; proxy_http_version 1.1; proxy_read_timeout 3600s;
      proxy_next_upstream error timeout http_503 non_idempotent;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr; }} }}
}}
"""
HAPROXY = """
global
  maxconn 8000
defaults
  mode http
  option forwardfor
  option redispatch
  option httpchk GET /ready
  retries 3
  retry-on conn-failure empty-response 503
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend front
  bind 127.0.0.1:{own}
  default_backend replicas
backend replicas
  {servers}
"""


@contextmanager
def proxied(name: str, directory: Path, ports: Sequence[int]) -> Iterator[int]:
    """Yield the port of a proxy before the replicas. Raises RuntimeError if it is not installed."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        raise RuntimeError(f"{name} is not installed")
    own, file = free_port(), directory / f"{name}.conf"
    if name == "nginx":
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
        file.write_text(NGINX.format(directory=directory, own=own, servers=servers))
        command = [program, "-c", str(file)]
    else:
        servers = "\n  ".join(f"server s{port} 127.0.0.1:{port} check inter 200ms" for port in ports)
        file.write_text(HAPROXY.format(own=own, servers=servers))
        command = [program, "-f", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _listens(own), what=f"{name}")
            yield own
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
