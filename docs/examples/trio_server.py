"""The same core under trio: one task per connection, deadlines by `trio.move_on_at`.

`pip install trio` (OpenGuild does not depend on it), then `python docs/examples/trio_server.py 8082`.
"""

from __future__ import annotations

import math
import secrets
import sys

import trio

from openguild_proto import Event, RequestReceived, Response, ServerConnection, TextReceived, Wants, WebSocketRequested


def decide(conn: ServerConnection, event: Event, now: float) -> None:
    """Handle an event. It is pure, so a test can call it without trio."""
    match event:
        case RequestReceived(request=request):
            conn.respond(Response.json({"path": request.path, "request_id": request.request_id}), now)
        case WebSocketRequested():
            conn.accept(now)
        case TextReceived(text=text):
            conn.send_text(text.upper(), now)


async def next_events(conn: ServerConnection, stream: trio.SocketStream) -> list[Event]:
    """Wait for bytes, for the end of the stream or for the connection's next deadline."""
    deadline = conn.next_deadline()
    with trio.move_on_at(math.inf if deadline is None else deadline):
        data = await stream.receive_some(65536)
        now = trio.current_time()
        return conn.receive_data(bytes(data), now) if data else conn.receive_eof(now)
    return conn.handle_deadline(trio.current_time())


async def serve_connection(stream: trio.SocketStream) -> None:
    conn = ServerConnection(now=trio.current_time(), random_bytes=secrets.token_bytes)
    try:
        while conn.wants not in {Wants.CLOSE, Wants.ABORT}:
            events = await next_events(conn, stream)
            while True:
                for event in events:
                    decide(conn, event, trio.current_time())
                for part in conn.data_to_send():  # before the next request, so that unread responses do not add up
                    await stream.send_all(part)
                if not (events := conn.next_events(trio.current_time())):
                    break
            if conn.wants is Wants.SHUT_WRITE:  # the answer is not lost if the peer sends more
                await stream.send_eof()
                conn.write_ended(trio.current_time())
    except trio.BrokenResourceError:
        print("connection lost", flush=True)
    finally:
        await stream.aclose()


async def main(port: int) -> None:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    print(f"listening on 127.0.0.1:{listeners[0].socket.getsockname()[1]}", flush=True)
    await trio.serve_listeners(serve_connection, listeners)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8082)
