"""Answers requests and echoes WebSocket messages, in one thread: `python docs/examples/select_server.py [PORT]`."""

import secrets
import socket
import sys
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from time import monotonic

from openguild_proto import Event, RequestReceived, Response, ServerConnection, TextReceived, Wants, WebSocketRequested


def answer(conn: ServerConnection, event: Event) -> None:
    match event:
        case RequestReceived(request=request):
            conn.respond(Response.text(f"you asked for {request.path}\n"), monotonic())
        case WebSocketRequested():
            conn.accept(monotonic())
        case TextReceived(text=text):
            conn.send_text(text, monotonic())


def is_behind(conn: ServerConnection) -> bool:
    """Whether the peer has a response to take before another request is read; messages have a bound of their own."""
    return len(conn.outbox) > 0 and not conn.is_websocket


def handle(sock: socket.socket, conn: ServerConnection, events: list[Event]) -> None:
    """Answer, and the request behind it only when the response has left."""
    while True:
        for event in events:
            answer(conn, event)
        try:
            write(sock, conn)
        except OSError:  # the peer has gone, as reading finds
            conn.outbox.clear()
        if is_behind(conn) or not (events := conn.next_events(monotonic())):
            return


def read(sock: socket.socket, conn: ServerConnection) -> None:
    try:
        data = sock.recv(65_536)
    except BlockingIOError:
        return
    except OSError:  # the peer has disconnected
        data = b""
    handle(sock, conn, conn.receive_data(data, monotonic()) if data else conn.receive_eof(monotonic()))


def write(sock: socket.socket, conn: ServerConnection) -> None:
    """Write as much as the kernel accepts now."""
    while len(conn.outbox):
        try:
            sent = sock.send(conn.outbox.peek(65_536))
        except BlockingIOError:
            conn.write_blocked(monotonic())  # starts a deadline: see next_deadline()
            return
        conn.outbox.consume(sent)
        conn.wrote(sent, monotonic())
    conn.write_idle(monotonic())


def serve(listener: socket.socket) -> None:
    selector, conns = DefaultSelector(), dict[socket.socket, ServerConnection]()
    selector.register(listener, EVENT_READ)
    while True:
        due = [deadline for conn in conns.values() if (deadline := conn.next_deadline()) is not None]
        ready = selector.select(max(0.0, min(due) - monotonic()) if due else None)
        for key, _ in ready:
            if key.fileobj is listener:
                sock, (address, _) = listener.accept()
                sock.setblocking(False)
                conns[sock] = ServerConnection(now=monotonic(), random_bytes=secrets.token_bytes, peer_address=address)
                selector.register(sock, EVENT_READ)
        readable = {key.fileobj for key, mask in ready if mask & EVENT_READ}
        for sock, conn in list(conns.items()):
            if sock in readable:
                read(sock, conn)
            handle(sock, conn, conn.handle_deadline(monotonic()))  # does nothing before the deadline
            if conn.wants is Wants.KEEP:
                selector.modify(sock, (0 if is_behind(conn) else EVENT_READ) | (EVENT_WRITE if len(conn.outbox) else 0))
            else:
                del conns[sock]
                selector.unregister(sock)
                sock.close()


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8088
with socket.create_server(("127.0.0.1", port)) as listener:
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    serve(listener)
