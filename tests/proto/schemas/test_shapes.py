"""Faults of shape, in words that need no knowledge of Python or msgspec."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from openguild_proto.gateway.frames import ChannelId, Key, Log, MessageId
from openguild_proto.schemas.shapes import MAX_PROBLEM_CHARS, shape_problem


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(msgspec.Struct):
    number: int
    shade: Literal["light", "dark"] = "light"


class Body(msgspec.Struct):
    text: Annotated[str, Meta(min_length=1, max_length=3)] | None = None
    number: Annotated[int, Meta(ge=0, le=7)] | None = None
    part: float = 0.0
    switch: bool = False
    lines: Annotated[list[Inner], Meta(min_length=1, max_length=2)] | None = None
    inner: Inner | None = None
    colour: Colour | None = None
    channel: ChannelId | None = None
    message: MessageId | None = None
    log: Log | None = None
    key: Key | None = None


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (7, "whole", "must be an object"),
        ({"text": 5}, "text", "must be a string"),
        ({"text": ""}, "text", "must not be empty"),
        ({"text": "long"}, "text", "must be at most 3 characters long"),
        ({"number": 1.5}, "number", "must be an integer"),
        ({"number": -1}, "number", "must be at least 0"),
        ({"number": 2**80}, "number", "must be at most 7"),
        ({"part": None}, "part", "must be a number"),
        ({"switch": 1}, "switch", "must be true or false"),
        ({"lines": []}, "lines", "must not be empty"),
        ({"lines": [{"number": 1}] * 3}, "lines", "must be at most 2 entries long"),
        ({"lines": [{"number": 1}, {"number": []}]}, "lines[1].number", "must be an integer"),
        ({"lines": [{}]}, "lines[0].number", "must be provided"),
        ({"inner": []}, "inner", "must be an object"),
        ({"inner": {}}, "inner.number", "must be provided"),
        ({"colour": "green" * 20_000}, "colour", "must be one of: blue, red"),
        ({"inner": {"number": 1, "shade": "grey"}}, "inner.shade", "must be one of: dark, light"),
        ({"lines": [{"number": 1, "shade": ""}]}, "lines[0].shade", "must be one of: dark, light"),
        ({"channel": "zz"}, "channel", "must be a UUID in lower case with hyphens"),
        ({"message": "zz"}, "message", "must be an event id"),
        ({"log": "zz"}, "log", "must be channel:, guild: or user: and an id"),
        ({"key": "a b"}, "key", "must be 1 to 64 visible ASCII characters"),
    ],
)
def test_faults_are_told_in_plain_words(body: Any, field: str, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(msgspec.json.encode(body), type=Body)
    told = shape_problem(str(raised.value), "whole", Body)
    assert told.field == field
    assert told.message.removesuffix(" or null") == words


def test_other_messages_are_passed_on_within_a_bound() -> None:
    assert shape_problem("x" * 9_000, "whole", Body) == ("whole", "x" * MAX_PROBLEM_CHARS)
