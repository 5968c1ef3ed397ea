"""Untrusted bytes to typed values; every fault a typed refusal (PROTOCOL 3.3, 3.4)."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Request
from openguild_proto.http.refusal import refusal_response
from openguild_proto.limits import MAX_JSON_CONTAINERS, MAX_SEQUENCE
from openguild_proto.schemas.decode import (
    _parse_texts,
    decode_body,
    parse_clamped,
    parse_integer,
    parse_json,
    parse_query,
    parse_uuid,
)

UUID = "ec7c5138-ee1a-4112-95ef-e53514b670c2"


class Inner(msgspec.Struct):
    number: int


class Body(msgspec.Struct):
    name: str
    inner: Inner | None = None


def request(body: bytes = b"", query: str = "", content_type: str | None = "application/json") -> Request:
    headers = (("content-type", content_type),) if content_type is not None else ()
    return Request(method="POST", path="/", query=query, headers=headers, body=body)


def refusal(call: object, *arguments: object) -> Refusal:
    with pytest.raises(Refusal) as raised:
        call(*arguments)  # type: ignore[operator]  # any function
    return raised.value


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"])
def test_json_media_types(kind: str) -> None:
    assert decode_body(request(b'{"name":"x","unknown":1}', content_type=kind), Body) == Body("x")


@pytest.mark.parametrize(("coding", "is_taken"), [("identity", True), ("gzip", False), ("br", False), ("", True)])
def test_content_codings(coding: str, is_taken: bool) -> None:
    coded = msgspec.structs.replace(
        request(b'{"name":"x"}'), headers=(("content-type", "application/json"), ("content-encoding", coding))
    )
    if is_taken:
        assert decode_body(coded, Body) == Body("x")
    else:
        assert refusal(decode_body, coded, Body).code is ErrorCode.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize("kind", [None, "", "text/json", "application/jsonp", "application/x-www-form-urlencoded"])
def test_other_media_types(kind: str | None) -> None:
    assert refusal(decode_body, request(b"{}", content_type=kind), Body).code is ErrorCode.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "name"),
        (b'{"name":1}', "name"),
        (b'{"name":"x","inner":{}}', "inner.number"),
        (b'{"name":"x","inner":{"number":"1"}}', "inner.number"),
        (b'{"name":"x","inner":{"number":1,"number":2}}', "number"),
        (b"[]", "body"),
        (b'"text"', "body"),
    ],
)
def test_wrong_shapes_name_the_field(body: bytes, field: str) -> None:
    refused = refusal(decode_body, request(body), Body)
    assert refused.code is ErrorCode.VALIDATION
    assert refused.details[0].field == field


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nul",
        b"{}x",
        b"\xff",
        b'"\\ud800"',
        b"NaN",
        b"Infinity",
        b"[" * 129 + b"]" * 129,
        b"[" * 100_000,
        b"\0",
        b"01",
        b'{"\\ud800":1,"\\ud800":2}',
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    assert refusal(parse_json, body).code is ErrorCode.INVALID_JSON


def test_depth_counts_structure_and_not_text() -> None:
    assert parse_json(b"[" * 128 + b"]" * 128)
    assert parse_json(json.dumps("[" * 500 + '"' + "{" * 500).encode()) == "[" * 500 + '"' + "{" * 500


@pytest.mark.parametrize(
    "body",
    [
        b"[]" * 129 + b'"' + b'\\"' * (1 << 20),
        b"[]" * 129 + b'"' + b"\\" * (1 << 21),
        b"[]" * 129 + b'"' + b"x" * (1 << 21),
        b"[]" * 129 + b'"' * (1 << 21),
    ],
    ids=["quotes", "backslashes", "text", "texts"],
)
def test_the_depth_of_any_two_mebibytes_is_found_in_one_scan(body: bytes) -> None:
    started = time.process_time()
    assert refusal(parse_json, body).code is ErrorCode.INVALID_JSON
    assert time.process_time() - started < 5, "it takes 0.2 s at most; going back for each quote took minutes"


@pytest.mark.parametrize("one", ["[]", "{}", '{"":0}'], ids=["arrays", "objects", "members"])
def test_a_body_has_few_objects_and_arrays(one: str) -> None:
    """A million of them took a second of the loop, also where no route reads them."""
    few, text = f"[{','.join([one] * (MAX_JSON_CONTAINERS - 1))}]", json.dumps(one * MAX_JSON_CONTAINERS)
    assert len(parse_json(few.encode())) == MAX_JSON_CONTAINERS - 1
    assert parse_json(f"[{text}]".encode()) == [one * MAX_JSON_CONTAINERS]
    assert refusal(parse_json, f"[{few}]".encode()).code is ErrorCode.INVALID_JSON


names = st.text(st.sampled_from("ab\ud800\udfff"), max_size=3)


@given(st.lists(st.tuples(names, names), max_size=4))
def test_every_refusal_can_be_sent(members: list[tuple[str, str]]) -> None:
    """Also of names that are no Unicode."""
    body = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members) + "}"
    refused = None
    try:
        parse_json(body.encode())
    except Refusal as raised:
        refused = raised
    assert refused is None or refusal_response(refused, "r").status == 400


texts = st.dictionaries(st.text(max_size=3), st.text(max_size=4) | st.booleans() | st.none(), max_size=3)


@given(texts, st.booleans(), st.integers(0, 60), st.sampled_from([*b'"\\:,{}ud8c01 ', 0, 0x80]))
def test_an_object_of_texts_is_parsed_as_any_other_value(
    members: dict[str, Any], escaped: bool, place: int, byte: int
) -> None:
    """With one byte changed: what the quick way takes, the strict one takes as well, within an array, as the same."""
    body = bytearray(json.dumps(members, ensure_ascii=escaped).encode())
    if place < len(body):
        body[place] = byte
    quick = _parse_texts(bytes(body))
    if quick is not None:
        assert parse_json(b"[" + body + b"]") == [quick]
        assert quick == parse_json(bytes(body))


def test_a_repeated_name_is_refused_whatever_it_is_told_with() -> None:
    for body in (b'{"a":"b","a":"c"}', b'{"a":"","a":"::"}', b'{"a":null,"\\u0061":null}'):
        assert refusal(parse_json, body).code is ErrorCode.VALIDATION


@given(st.binary(max_size=60))
def test_no_bytes_make_anything_but_a_refusal(body: bytes) -> None:
    with suppress(Refusal):
        json.dumps(parse_json(body))


def test_an_empty_body_may_stand_for_an_object() -> None:
    class Optional(msgspec.Struct):
        number: int | None = None

    assert decode_body(request(b"", content_type=None), Optional, required=False) == Optional()


@pytest.mark.parametrize(
    "text", [UUID, UUID.upper(), UUID.replace("-", ""), "{" + UUID + "}", "urn:uuid:" + UUID, "URN:UUID:" + UUID]
)
def test_uuid_forms(text: str) -> None:
    assert parse_uuid(text) == UUID


@pytest.mark.parametrize("text", ["", "x", UUID[:-1], UUID + "0", UUID.replace("e", "g"), "{" + UUID, "٣" * 32])
def test_what_is_no_uuid(text: str) -> None:
    assert parse_uuid(text) is None


def test_queries() -> None:
    assert parse_query(request(query="a=1&b=x%20y+z&&"), "a", "b") == {"a": "1", "b": "x y z"}
    for query in ("a=1&a=2", "c=1", "a=%zz", "a=%ff", "%00=1"):
        assert refusal(parse_query, request(query=query), "a", "b").code is ErrorCode.VALIDATION
    for parse in (parse_integer, parse_clamped):
        assert [parse("n", text) for text in ("-5", "-000", "0" * 8_000 + "12")] == [-5, 0, 12]
        for text in ("", "x", "1.5", " 1", "1_000", "٣", "+1"):
            assert refusal(parse, "n", text).details[0].field == "n"
    assert refusal(parse_integer, "n", "9" * 30).details[0].field == "n"
    assert [parse_clamped("n", sign + "9" * 30) for sign in ("", "-")] == [MAX_SEQUENCE, -MAX_SEQUENCE - 1]
