"""Annotated types of members, for the OpenAPI document.

They have no effect on decoding. Operations check the values after trimming, and report all problems together.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta

from openguild_proto.limits import (
    MAX_DEVICE_FIELD_CHARS,
    MAX_EMOJI_CHARS,
    MAX_INVITE_TTL_SECS,
    MAX_INVITE_USES,
    MAX_MESSAGE_CHARS,
    MAX_NAME_CHARS,
    MAX_NONCE_CHARS,
    MAX_PASSWORD_CHARS,
    MAX_POSITION,
    MAX_REASON_CHARS,
    MAX_SAFE_INTEGER,
    MAX_SEQUENCE,
    MAX_SYNC_LOGS,
    MAX_TOPIC_CHARS,
    MAX_TYPING_CHARS,
    MIN_PASSWORD_CHARS,
)
from openguild_proto.policy.permissions import ROLES
from openguild_proto.policy.timeouts import MAX_TIMEOUT_SECS

SCHEMA_PREFIX = "#/components/schemas/"
MANDATORY_MARK = "x-mandatory"
CHARACTERS = "x-characters"
NONCE_PATTERN = f"^[!-~]{{1,{MAX_NONCE_CHARS}}}$"
EVENT_ID_PATTERN = r"^\$[1-9A-HJ-NP-Za-km-z]{1,44}$"

UUID_PATTERN = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
LOG_NAME_PATTERN = rf"^(channel|guild|user):{UUID_PATTERN}$"
LAST = r"(?!\n)"  # behind `$`, which in Python also matches before a line break at the end

# White space that is trimmed from texts, and control characters, as classes of a pattern (PROTOCOL 1.2.4, 1.3). They are
# spelled out: engines differ in what `\\s` is.
_SPACES = r"\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NUL = r"\u0000"
_CONTROLS = r"\u0000-\u001f\u007f-\u009f"


def text_pattern(least: int, most: int, refused: str = _CONTROLS) -> str:
    """Return the pattern of a text of `least` to `most` characters after trimming, without those of the class `refused`."""
    end, inner = f"[^{refused}{_SPACES}]", f"[^{refused}]" if refused else r"[\s\S]"
    text = f"{end}({inner}{{{max(0, least - 2)},{most - 2}}}{end}){'?' if least < 2 else ''}"
    return f"^[{_SPACES}]*{text if least else f'({text})?'}[{_SPACES}]*$"


MANDATORY = Meta(extra_json_schema={MANDATORY_MARK: True})  # an absent member is read as blank, which is refused
REACTIONS = Meta(extra_json_schema={"type": "array", "items": {"$ref": SCHEMA_PREFIX + "Reaction"}, "default": []})
POSITIONS = Meta(extra_json_schema={"maxItems": MAX_SYNC_LOGS})
EVENT = Meta(extra_json_schema={"$ref": SCHEMA_PREFIX + "CanonicalEvent"})


def text_schema(least: int, most: int, example: str, refused: str = _CONTROLS, **more: str) -> dict[str, Any]:
    """Return the schema of a text. `format`: names a rule of PROTOCOL 1.3 that no pattern says.

    The bounds are in the pattern, because they count what trimming leaves, and again in `x-characters` for readers.
    """
    pattern = text_pattern(least, most, refused)
    return {"type": "string", "pattern": pattern, CHARACTERS: [least, most], "examples": [example], **more}


def _text(least: int, most: int, example: str, refused: str = _CONTROLS, **more: str) -> Meta:
    return Meta(extra_json_schema=text_schema(least, most, example, refused, **more))


ID_EXAMPLE = "0198c0de-0000-4000-8000-000000000001"
EVENT_ID_EXAMPLE = "$4GUnHof414FpLgZGxg4MSGVxLPm28rCBLPSwSeSMSNFa"

Uuid: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "uuid", "examples": [ID_EXAMPLE]})]
Timestamp: TypeAlias = Annotated[
    str, Meta(extra_json_schema={"format": "date-time", "examples": ["2026-11-27T01:34:00.934Z"]})
]
NameText: TypeAlias = Annotated[str, _text(1, MAX_NAME_CHARS, "general", format="title")]
Username: TypeAlias = Annotated[str, _text(1, MAX_NAME_CHARS, "alice", format="username")]
DisplayText: TypeAlias = Annotated[str, _text(0, MAX_NAME_CHARS, "Alice", format="title")]
MessageText: TypeAlias = Annotated[str, _text(1, MAX_MESSAGE_CHARS, "hello", _NUL)]
Password: TypeAlias = Annotated[str, _text(MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS, "battery staple", format="password")]
Secret: TypeAlias = Annotated[str, _text(1, MAX_PASSWORD_CHARS, "battery staple", "", format="password")]
DeviceText: TypeAlias = Annotated[str, _text(1, MAX_DEVICE_FIELD_CHARS, "phone", format="title")]
OptionalDeviceText: TypeAlias = Annotated[str, _text(0, MAX_DEVICE_FIELD_CHARS, "Alice's phone", format="title")]
NotBlank: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": f"[^{_SPACES}]"})]
Identifier: TypeAlias = Annotated[str, _text(1, MAX_DEVICE_FIELD_CHARS, "alice")]
EventId: TypeAlias = Annotated[
    str, Meta(extra_json_schema={"pattern": EVENT_ID_PATTERN, "examples": [EVENT_ID_EXAMPLE]})
]
Emoji: TypeAlias = Annotated[str, _text(1, MAX_EMOJI_CHARS, "\N{WAVING HAND SIGN}", format="emoji")]
ReasonText: TypeAlias = Annotated[str, _text(1, MAX_REASON_CHARS, "spam")]
TopicText: TypeAlias = Annotated[str, _text(0, MAX_TOPIC_CHARS, "Tea and biscuits", format="title")]
Position: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_POSITION})]
PreviewText: TypeAlias = Annotated[str, _text(0, MAX_TYPING_CHARS, "I was just", _NUL)]
Nonce: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": NONCE_PATTERN, "examples": ["5f1c"]})]
Role: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]
ServerName: TypeAlias = Annotated[str, Meta(extra_json_schema={"examples": ["chat.example.org"]})]
Sequence: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1})]
Epoch: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_SAFE_INTEGER})]
Head: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_SEQUENCE})]
AnyInteger: TypeAlias = Annotated[
    int, Meta(extra_json_schema={"description": "a value outside the bounds counts as the nearest bound"})
]
Count: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 0})]
LogName: TypeAlias = Annotated[
    str, Meta(extra_json_schema={"pattern": LOG_NAME_PATTERN, "examples": [f"guild:{ID_EXAMPLE}"]})
]
InviteUses: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_INVITE_USES})]
TimeoutSeconds: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_TIMEOUT_SECS})]
InviteSeconds: TypeAlias = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_INVITE_TTL_SECS})]
