"""The client's side, without I/O: one HTTP connection, the session's tokens, streams that resume, backoff.

`openguild_runtime.client.Client` drives it with anyio; an embedder may drive it with anything.
"""

from openguild_proto.client.backoff import is_passing
from openguild_proto.client.foreign import foreign_reason
from openguild_proto.client.http import ClientResponse, ConnectionBroken, HttpClient
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
    "ApiError", "Backoff", "ClientResponse", "ConnectionBroken", "Delivered", "Disconnected", "Ended", "HttpClient",
    "Notified", "Opened", "Session", "Step", "StreamClient", "StreamEvent", "api_error", "foreign_reason", "is_passing",
    "next_step",
]  # fmt: skip
