"""OpenGuild's protocol, without I/O: what an embedder imports.

Feed bytes and deadlines to a `ServerConnection`, take events, answer, take bytes to send. Give subscribers of a
stream their frames with a `Hub`. Drive an operation yourself: `dispatch(context, request)` yields effects.
"""

from openguild_proto.canonical.event import BuiltEvent, build_event
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.canonical.verify import UnverifiedEvent, Verified, verify_event
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
from openguild_proto.ws.frames import close_frame, ping_frame, pong_frame, text_frame

__all__ = [
    "CLOSE_CODES", "BuiltEvent", "BytesReceived", "CloseCode", "DeadlineExpired", "ErrorCode", "Event", "EventSigner",
    "FieldProblem", "HeaderPolicy", "Hub", "Lagged", "Limits", "LocalProtocolError", "OpenStream", "PeerClosed", "PeerGone",
    "PeerViolated", "Phase", "Refusal", "Request", "RequestReceived", "Response", "Sequencer", "ServerConnection", "SigningKey",
    "Subscriber", "SubscriberState", "TextReceived", "UnverifiedEvent", "Verified", "Wants", "WebSocketRequested", "build_event",
    "close_frame", "ping_frame", "pong_frame", "text_frame", "verify_event",
]  # fmt: skip
