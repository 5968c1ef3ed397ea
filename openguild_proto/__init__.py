"""OpenGuild's protocol, without I/O: what an embedder imports.

A `ServerConnection` speaks HTTP/1.1 and WebSocket over one byte stream. A server that serves one client at a time:

    import secrets, socket, time
    from openguild_proto import RequestReceived, Response, ServerConnection, Wants

    listener = socket.create_server(("127.0.0.1", 8081))
    while True:
        sock, _ = listener.accept()
        conn = ServerConnection(now=time.monotonic(), random_bytes=secrets.token_bytes)
        while conn.wants is Wants.KEEP and (data := sock.recv(65_536)):
            events = conn.receive_data(data, time.monotonic())
            while True:
                for event in events:
                    if isinstance(event, RequestReceived):
                        conn.respond(Response.text("hello"), time.monotonic())
                for part in conn.data_to_send():
                    sock.sendall(part)
                if not (events := conn.next_events(time.monotonic())):
                    break
        sock.close()

A server for many clients also waits for `next_deadline`, see docs/tutorials/embedder.md.

A `Hub` distributes the frames of a log to many subscribers, and a `FanoutWriter` sends them on a connection.
`build_event` and `verify_event` sign and check events.
Operations, which answer requests and yield effects, are run by `openguild_proto.operations.dispatch`.
"""

from openguild_proto.canonical.encode import CanonicalError
from openguild_proto.canonical.event import BuiltEvent, build_event
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.canonical.verify import UnverifiedEvent, Verified, verify_event
from openguild_proto.connection.fanout_writer import FanoutWriter
from openguild_proto.connection.phases import Phase, Wants
from openguild_proto.connection.server import ServerConnection
from openguild_proto.errors import ErrorCode, FieldProblem, LocalProtocolError, Refusal
from openguild_proto.events import (
    BytesReceived,
    DeadlineExpired,
    Event,
    PeerClosed,
    PeerGone,
    PeerViolated,
    RequestReceived,
    TextReceived,
    WebSocketRequested,
)
from openguild_proto.fanout.hub import Hub, Lagged, Subscriber, SubscriberState
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import OpenStream, Request, Response
from openguild_proto.limits import Limits
from openguild_proto.log.sequencer import Sequencer
from openguild_proto.ws.close_codes import CLOSE_CODES, CloseCode
from openguild_proto.ws.frames import binary_frame, close_frame, ping_frame, pong_frame, text_frame

__all__ = [
    "CLOSE_CODES", "BuiltEvent", "BytesReceived", "CanonicalError", "CloseCode", "DeadlineExpired", "ErrorCode", "Event",
    "EventSigner", "FanoutWriter", "FieldProblem", "HeaderPolicy", "Hub", "Lagged", "Limits", "LocalProtocolError", "OpenStream",
    "PeerClosed", "PeerGone", "PeerViolated", "Phase", "Refusal", "Request", "RequestReceived", "Response", "Sequencer",
    "ServerConnection", "SigningKey", "Subscriber", "SubscriberState", "TextReceived", "UnverifiedEvent", "Verified", "Wants",
    "WebSocketRequested", "binary_frame", "build_event", "close_frame", "ping_frame", "pong_frame", "text_frame", "verify_event",
]  # fmt: skip
