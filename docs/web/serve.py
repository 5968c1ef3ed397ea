"""Serves the page in this directory on its own port, with its own content-security policy: `make web`.

    python docs/web/serve.py [--port 8081] [--host 127.0.0.1] [--api http://127.0.0.1:8080]

The page sends its requests directly to the server at `--api`, as any page of another origin does (PROTOCOL 2.6).
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def origin_of(url: str) -> str:
    """Return the origin, `http://host:port`, of a server's address. Raises ValueError for anything else."""
    parts = urlsplit(url)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.path not in {"", "/"}
        or "@" in parts.netloc
    ):
        raise ValueError(f"not a server's address: {url!r}: expected http://host:port")
    return f"{parts.scheme}://{parts.netloc}"


def policy(api: str) -> str:
    """Return the content-security policy: scripts and styles only from this server, none inline, and requests only to `api`."""
    return "; ".join((
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        f"connect-src 'self' {api} {api.replace('http', 'ws', 1)}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ))  # fmt: skip


def headers(api: str) -> dict[str, str]:
    """Return the headers of every response."""
    return {
        "Content-Security-Policy": policy(api),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def page_files() -> dict[str, Path]:
    """Return the served files, path -> file: those with a suffix in TYPES. All other paths get 404."""
    files = {f"/{path.relative_to(ROOT).as_posix()}": path for path in ROOT.rglob("*") if path.suffix in TYPES}
    return files | {"/": ROOT / "index.html"}


class Handler(BaseHTTPRequestHandler):
    """Serves the page's files and `settings.json`, which names `api`: the origin of the server that the page talks to."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds without a request

    def __init__(self, api: str, *connection: object) -> None:
        self.api = api
        super().__init__(*connection)  # type: ignore[arg-type]  # the arguments that the server passes

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/settings.json":
            self._answer(HTTPStatus.OK, "application/json", json.dumps({"api": self.api}).encode())
        elif (file := page_files().get(path)) is not None:
            self._answer(HTTPStatus.OK, TYPES[file.suffix], file.read_bytes())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"there is nothing at this address\n")

    do_HEAD = do_GET  # noqa: N815 - the name that the base class calls

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers(self.api).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


def web_server(host: str, port: int, api: str) -> ThreadingHTTPServer:
    """Return a server that listens; call its `serve_forever`. Raises OSError if it cannot listen, ValueError for a bad `api`."""
    return ThreadingHTTPServer((host, port), partial(Handler, origin_of(api)))


def main() -> int:
    options = argparse.ArgumentParser(description="Serves the OpenGuild page.")
    options.add_argument("--host", default="127.0.0.1", help="where to listen")
    options.add_argument("--port", default=8081, type=int, help="where to listen; 0: any free port")
    options.add_argument("--api", default="http://127.0.0.1:8080", help="the OpenGuild server")
    given = options.parse_args()
    try:
        server = web_server(given.host, given.port, given.api)
    except ValueError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except OSError as problem:
        sys.stderr.write(
            f"cannot listen on {given.host}:{given.port} ({problem.strerror}): end what listens there, "
            "or choose another port, such as: make web WEB_PORT=8082\n"
        )
        return 1
    with server:
        host, port = server.server_address[:2]
        sys.stdout.write(f"the page is at http://{host!s}:{port}/ and talks to {given.api}: Ctrl-C stops it\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
