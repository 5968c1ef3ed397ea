"""The client without I/O: an HTTP connection, session tokens, streams that resume, and backoff.

`openguild_runtime.client.Client` drives it with anyio. An embedder may drive it with any I/O library.
"""

from openguild_proto.client.account_logs import AccountLogs
from openguild_proto.client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    NotFound,
    Problem,
    RateLimited,
    Unauthorized,
    api_error,
    refused_command,
    session_end,
)
from openguild_proto.client.gateway_link import GatewayLink
from openguild_proto.client.http import ClientResponse, ConnectionBroken, HttpClient
from openguild_proto.client.invites import invite_code
from openguild_proto.client.proxy_answers import proxy_answer_reason
from openguild_proto.client.read_marks import ReadMark, ReadMarks
from openguild_proto.client.retry_advice import is_temporary
from openguild_proto.client.session import Session, Step, next_step
from openguild_proto.client.stream import (
    Delivered,
    Disconnected,
    Ended,
    Notified,
    Opened,
    StreamClient,
    StreamEvent,
)
from openguild_proto.client.typing_users import TypingUsers
from openguild_proto.client.websocket import (
    Accepted,
    Broken,
    ClientWebSocket,
    Closed,
    Message,
    Refused,
    WebSocketEvent,
)
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_logs import ResumePosition
from openguild_proto.policy.backoff import Backoff

__all__ = [
    "Accepted",
    "AccountLogs",
    "ApiError",
    "Backoff",
    "Broken",
    "ClientResponse",
    "ClientWebSocket",
    "Closed",
    "Conflict",
    "ConnectionBroken",
    "Delivered",
    "Disconnected",
    "Ended",
    "Forbidden",
    "GatewayClient",
    "GatewayLink",
    "HttpClient",
    "Message",
    "NotFound",
    "Notified",
    "Opened",
    "Problem",
    "RateLimited",
    "ReadMark",
    "ReadMarks",
    "Refused",
    "ResumePosition",
    "Session",
    "Step",
    "StreamClient",
    "StreamEvent",
    "TypingUsers",
    "Unauthorized",
    "WebSocketEvent",
    "api_error",
    "invite_code",
    "is_temporary",
    "next_step",
    "proxy_answer_reason",
    "refused_command",
    "session_end",
]  # fmt: skip
