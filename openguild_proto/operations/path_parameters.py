"""Describes the parameters of paths, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from openguild_proto.operations.router import UUID_PARAMETERS
from openguild_proto.schemas.fields import EVENT_ID_EXAMPLE, EVENT_ID_PATTERN, ID_EXAMPLE

_TEXTS: dict[str, dict[str, Any]] = {
    "event_id": {"pattern": EVENT_ID_PATTERN, "examples": [EVENT_ID_EXAMPLE]},
    "code": {"minLength": 1, "examples": ["qzuQPyycjt4B"]},
    "device_id": {"minLength": 1, "examples": ["phone"]},
    "identity": {"minLength": 1, "examples": ["alice"]},
}
_MEANINGS = {
    "guild_id": "the guild",
    "channel_id": "the channel",
    "user_id": "the user",
    "log_id": "the log: the id of its channel or guild",
    "event_id": "the message: the event that posted it",
    "code": "the code of the invite",
    "device_id": "the device, by the name from its login",
    "identity": "the identity",
}

PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    name: {"description": _MEANINGS[name], "schema": {"type": "string", **schema}}
    for name, schema in (
        *((name, {"format": "uuid", "examples": [ID_EXAMPLE]}) for name in sorted(UUID_PARAMETERS)),
        *_TEXTS.items(),
    )
}
"""Description and schema of each, by name."""
