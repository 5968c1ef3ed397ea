"""The client without I/O: an HTTP connection, session tokens, streams that resume, and backoff.

`openguild_runtime.client.Client` drives it with anyio. An embedder may drive it with any I/O library.
"""

from openguild_proto.client.http import ClientResponse, ConnectionBroken, HttpClient
from openguild_proto.client.proxy_answers import proxy_answer_reason
from openguild_proto.client.retry_advice import is_temporary
from openguild_proto.client.session import ApiError, Session, Step, api_error, next_step
from openguild_proto.client.stream import (
    Delivered,
    Disconnected,
    Ended,
    Notified,
    Opened,
    StreamClient,
    StreamEvent,
)
from openguild_proto.policy.backoff import Backoff

__all__ = [
    "ApiError",
    "Backoff",
    "ClientResponse",
    "ConnectionBroken",
    "Delivered",
    "Disconnected",
    "Ended",
    "HttpClient",
    "Notified",
    "Opened",
    "Session",
    "Step",
    "StreamClient",
    "StreamEvent",
    "api_error",
    "is_temporary",
    "next_step",
    "proxy_answer_reason",
]  # fmt: skip
