"""Annotated types of members, for the OpenAPI document.

They have no effect on decoding. Operations check the values after trimming, and report all problems together.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

from openguild_proto.limits import (
    MAX_DEVICE_FIELD_CHARS,
    MAX_EMOJI_CHARS,
    MAX_INVITE_TTL_SECS,
    MAX_INVITE_USES,
    MAX_MESSAGE_CHARS,
    MAX_NAME_CHARS,
    MAX_NONCE_CHARS,
    MAX_PAGE_EVENTS,
    MAX_PASSWORD_CHARS,
    MAX_POSITION,
    MAX_REASON_CHARS,
    MAX_SAFE_INTEGER,
    MAX_TOPIC_CHARS,
    MAX_TYPING_CHARS,
    MIN_PASSWORD_CHARS,
)
from openguild_proto.policy.permissions import ROLES

SCHEMA_PREFIX = "#/components/schemas/"
MANDATORY_MARK = "x-mandatory"
NONCE_PATTERN = f"^[!-~]{{1,{MAX_NONCE_CHARS}}}$"
EVENT_ID_PATTERN = r"^\$[1-9A-HJ-NP-Za-km-z]{1,44}$"

LOG_NAME_PATTERN = r"^(channel|guild|user):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

MANDATORY = Meta(extra_json_schema={MANDATORY_MARK: True})  # an absent member is read as blank, which is refused
REACTIONS = Meta(extra_json_schema={"type": "array", "items": {"$ref": SCHEMA_PREFIX + "Reaction"}, "default": []})
EVENT = Meta(extra_json_schema={"$ref": SCHEMA_PREFIX + "CanonicalEvent"})

Uuid: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Timestamp: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
NameText: TypeAlias = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_NAME_CHARS})]
DisplayText: TypeAlias = Annotated[str, Meta(extra_json_schema={"maxLength": MAX_NAME_CHARS})]
MessageText: TypeAlias = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_MESSAGE_CHARS})]
Password: TypeAlias = Annotated[
    str,
    Meta(extra_json_schema={"format": "password", "minLength": MIN_PASSWORD_CHARS, "maxLength": MAX_PASSWORD_CHARS}),
]
Secret: TypeAlias = Annotated[
    str, Meta(extra_json_schema={"format": "password", "minLength": 1, "maxLength": MAX_PASSWORD_CHARS})
]
DeviceText: TypeAlias = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_DEVICE_FIELD_CHARS})]
EventId: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": EVENT_ID_PATTERN})]
Emoji: TypeAlias = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_EMOJI_CHARS})]
ReasonText: TypeAlias = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_REASON_CHARS})]
TopicText: TypeAlias = Annotated[str, Meta(extra_json_schema={"maxLength": MAX_TOPIC_CHARS})]
Position: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_POSITION})]
PreviewText: TypeAlias = Annotated[str, Meta(extra_json_schema={"maxLength": MAX_TYPING_CHARS})]
Nonce: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": NONCE_PATTERN})]
Role: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]
Sequence: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1})]
Epoch: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_SAFE_INTEGER})]
Count: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 0})]
LogName: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": LOG_NAME_PATTERN})]
SyncLimit: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_PAGE_EVENTS})]
InviteUses: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_INVITE_USES})]
InviteSeconds: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_INVITE_TTL_SECS})]
