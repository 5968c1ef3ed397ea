"""Query parameters that several routes share."""

from __future__ import annotations

from typing import Any

from openguild_proto.limits import MAX_SAFE_INTEGER
from openguild_proto.operations.route import Parameter
from openguild_proto.schemas.decode import parse_integer

INTEGER: dict[str, Any] = {"type": "integer"}
STRING: dict[str, Any] = {"type": "string"}
SEQUENCE: dict[str, Any] = {"type": "integer", "minimum": 0}
CLAMPED = "how many at most; beyond the bounds the nearest one counts"

EPOCH = Parameter(
    "epoch",
    {"type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER},
    "which log `since` counts in; another one than the channel's: 400 invalid_since",
    parse_integer,
)
ACCESS_TOKEN = Parameter("access_token", STRING, "the token, where no header can be sent; proxies may log it")
CLIENT_ID = Parameter("client_id", STRING, "ignored")
