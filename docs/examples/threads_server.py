"""Answers requests and echoes WebSocket messages, on threads: `python docs/examples/threads_server.py [PORT]`."""

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
)


def answer(conn: ServerConnection, event: Event) -> None:
    match event:
        case RequestReceived(request=request):
            conn.respond(Response.text(f"you asked for {request.path}\n"), monotonic())
        case WebSocketRequested(request=request) if request.path == "/echo":
            conn.accept(monotonic())
        case WebSocketRequested():
            conn.respond(Response.text("no stream here\n", status=404), monotonic())
        case TextReceived(text=text):
            conn.send_text(text, monotonic())
        case PeerViolated(rule=rule):
            print(f"broken rule: {rule}", flush=True)  # the reply is already queued


def serve(sock: socket.socket, address: str) -> None:
    conn = ServerConnection(now=monotonic(), random_bytes=secrets.token_bytes, peer_address=address)
    with sock, suppress(OSError):  # the peer has disconnected, or reads nothing
        while conn.wants is Wants.KEEP:
            deadline = conn.next_deadline()
            sock.settimeout(None if deadline is None else max(0.01, deadline - monotonic()))
            try:
                data = sock.recv(65_536)
            except TimeoutError:
                events = conn.handle_deadline(monotonic())
            else:
                events = conn.receive_data(data, monotonic()) if data else conn.receive_eof(monotonic())
            while True:
                for event in events:
                    answer(conn, event)
                for part in conn.data_to_send():  # before the next request: responses that nobody reads do not add up
                    sock.sendall(part)
                if not (events := conn.next_events(monotonic())):
                    break


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8088
with socket.create_server(("127.0.0.1", port)) as listener:
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    while True:
        sock, (address, _) = listener.accept()
        threading.Thread(target=serve, args=(sock, address), daemon=True).start()
