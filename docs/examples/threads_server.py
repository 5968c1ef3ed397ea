"""A complete chat echo server on blocking sockets and threads: the I/O-free core, and nothing else of OpenGuild.

`python docs/examples/threads_server.py 8081`, then `curl http://127.0.0.1:8081/` or a WebSocket to `/echo`.
"""

from __future__ import annotations

import secrets
import socket
import sys
import threading
from contextlib import suppress
from time import monotonic

from openguild_proto import (
    Event,
    PeerViolated,
    RequestReceived,
    Response,
    ServerConnection,
    TextReceived,
    Wants,
    WebSocketRequested,
)  # fmt: skip


def next_events(conn: ServerConnection, sock: socket.socket) -> list[Event]:
    """Wait for bytes, for the end of the stream or for the connection's next deadline."""
    deadline = conn.next_deadline()
    sock.settimeout(None if deadline is None else max(0.01, deadline - monotonic()))
    try:
        data = sock.recv(65536)
    except TimeoutError:
        return conn.handle_deadline(monotonic())
    return conn.receive_data(data, monotonic()) if data else conn.receive_eof(monotonic())


def answer(conn: ServerConnection, event: Event, address: str) -> None:
    match event:
        case RequestReceived(request=request):
            conn.respond(Response.text(f"you asked for {request.path}\n"), monotonic())
        case WebSocketRequested(request=request) if request.path == "/echo":
            conn.accept(monotonic())
        case WebSocketRequested():
            conn.respond(Response.text("no stream here\n", status=404), monotonic())
        case TextReceived(text=text):
            conn.send_text(text, monotonic())
        case PeerViolated(rule=rule):  # the reply is already queued
            print(f"{address} broke a rule: {rule}", flush=True)


def serve_connection(sock: socket.socket, address: str) -> None:
    """Drive one connection to its end: bytes in, events out, bytes to send."""
    conn = ServerConnection(now=monotonic(), random_bytes=secrets.token_bytes, peer_address=address)
    with sock, suppress(ConnectionError):
        while conn.wants is Wants.KEEP:
            events = next_events(conn, sock)
            while events:
                for event in events:
                    answer(conn, event, address)
                events = conn.next_events(monotonic())
            for part in conn.data_to_send():
                sock.sendall(part)


def serve(listener: socket.socket) -> None:
    """Accept for ever, one thread per connection; ends when the listener is closed."""
    while True:
        try:
            sock, address = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve_connection, args=(sock, address[0]), daemon=True).start()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8081)) as listening:
        print(f"listening on 127.0.0.1:{listening.getsockname()[1]}", flush=True)
        serve(listening)
