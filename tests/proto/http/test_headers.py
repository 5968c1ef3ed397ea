"""The header policy (PROTOCOL 2.5 to 2.7)."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.http.headers import HeaderPolicy, request_id_for
from openguild_proto.http.message import Headers, Request, Response
from tests.support.wire import fixed_bytes


def applied(policy: HeaderPolicy, method: str = "GET", **headers: str) -> dict[str, str]:
    request = Request(method=method, path="/", query="", headers=tuple(headers.items()))
    return {name.decode(): value.decode() for name, value in policy.apply(Response.empty(), request, "id")}


def test_only_listed_origins_are_admitted() -> None:
    anyone = HeaderPolicy.create()
    assert applied(anyone, origin="https://a.example")["access-control-allow-origin"] == "*"
    listed = HeaderPolicy.create(cors_allowed_origins=("https://a.example",))
    assert applied(listed, origin="https://a.example")["access-control-allow-origin"] == "https://a.example"
    for headers in ({"origin": "https://b.example"}, {"origin": "https://a.example.evil"}, {}):
        assert "access-control-allow-origin" not in applied(listed, **headers)
        assert "access-control-allow-headers" not in applied(listed, "OPTIONS", **headers)
    assert "authorization" in applied(listed, "OPTIONS", origin="https://a.example")["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in applied(anyone, "OPTIONS", origin="https://a.example")


def test_a_header_of_the_response_replaces_that_of_the_policy_in_any_case() -> None:
    page = Response(200, headers=(("Content-Security-Policy", "default-src 'self'"),))
    names = [name for name, _ in HeaderPolicy.create().apply(page, None, "id")]
    assert names.count(b"content-security-policy") == 1
    lines = HeaderPolicy.create().lines(page, None, "id")
    assert lines.lower().count(b"content-security-policy") == 1


@pytest.mark.parametrize(
    ("allowed", "origins", "admitted"),
    [
        ((), ("https://b.example",), True),
        (("*",), ("https://b.example",), True),
        (("https://a.example",), (), True),
        (("https://a.example",), ("https://a.example",), True),
        (("https://a.example", "https://b.example"), ("https://b.example",), True),
        (("https://a.example",), ("https://b.example",), False),
        (("https://a.example",), ("https://a.example.evil",), False),
        (("https://a.example",), ("http://a.example",), False),
        (("https://a.example",), ("null",), False),
        (("https://a.example",), ("",), False),
        (("https://a.example",), ("https://a.example", "https://b.example"), False),
    ],
)
def test_streams_are_opened_from_listed_origins_only(
    allowed: tuple[str, ...], origins: tuple[str, ...], admitted: bool
) -> None:
    headers = tuple(("origin", origin) for origin in origins)
    request = Request(method="GET", path="/", query="", headers=headers)
    assert HeaderPolicy.create(cors_allowed_origins=allowed).admits_stream(request) is admitted


@pytest.mark.parametrize("argument", ["cors_allowed_origins", "trusted_proxies"])
def test_one_text_in_place_of_a_tuple_is_refused(argument: str) -> None:
    one: dict[str, Any] = {argument: "*"}
    with pytest.raises(ValueError, match="tuples of entries"):
        HeaderPolicy.create(**one)


@pytest.mark.parametrize("entry", ["", "a.example", "https://a.example/", "https://a b", "javascript:x"])
def test_a_bad_origin_stops_the_start(entry: str) -> None:
    with pytest.raises(ValueError):
        HeaderPolicy.create(cors_allowed_origins=(entry,))


@pytest.mark.parametrize(
    ("own", "sent"), [((), b"no-store"), ((("cache-control", "public, max-age=60"),), b"public, max-age=60")]
)
def test_a_response_is_not_stored_unless_it_says_so(own: Headers, sent: bytes) -> None:
    response = Response(status=200, headers=own)
    headers = HeaderPolicy().apply(response, None, "id")
    assert [value for name, value in headers if name == b"cache-control"] == [sent]
    assert HeaderPolicy().lines(response, None, "id").count(b"cache-control: " + sent + b"\r\n") == 1


@pytest.mark.parametrize("allowed", [(), ("https://a.example",)])
def test_a_page_of_another_origin_may_read_what_it_needs(allowed: tuple[str, ...]) -> None:
    """The cursor of the next page, the epoch and the head of a log, and how long to wait."""
    request = Request(method="GET", path="/", query="", headers=(("origin", "https://a.example"),))
    headers = dict(HeaderPolicy.create(cors_allowed_origins=allowed).apply(Response(status=200), request, "id"))
    exposed = headers[b"access-control-expose-headers"].split(b", ")
    assert set(exposed) == {
        b"x-request-id",
        b"x-next-after",
        b"x-next-cursor",
        b"x-openguild-epoch",
        b"x-openguild-head",
        b"retry-after",
        b"ratelimit",
        b"ratelimit-policy",
    }


def test_what_the_operation_set_is_kept() -> None:
    response = Response(status=200, headers=(("x-frame-options", "SAMEORIGIN"),))
    headers = HeaderPolicy().apply(response, None, "id")
    assert [value for name, value in headers if name == b"x-frame-options"] == [b"SAMEORIGIN"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", "1.1.1.1", "192.0.2.1"),  # not a trusted proxy
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "9.9.9.9, 1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "9.9.9.9, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "1.1.1.1, garbage", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, garbage, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.1", '"1.1.1.1:80"', "1.1.1.1"),
        ("fd00::1", "1.1.1.1", "1.1.1.1"),
        ("::ffff:10.0.0.1", "::ffff:1.1.1.1", "1.1.1.1"),  # IPv4 in a dual-stack proxy's words
        ("10.0.0.1", "1.1.1.1, ::ffff:10.0.0.2", "1.1.1.1"),
        ("10.0.0.1", "fe80::1%eth0", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, [fe80::1%25eth0]:80", "10.0.0.1"),
    ],
)
def test_the_client_is_the_right_most_untrusted_hop(peer: str, forwarded: str, expected: str) -> None:
    policy = HeaderPolicy.create(trusted_proxies=("10.0.0.0/8", "fd00::/8"))
    headers = (("x-forwarded-for", forwarded),) if forwarded else ()
    assert policy.client_address(peer, headers) == expected


@pytest.mark.parametrize("entry", ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1"])
@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_a_proxy_may_be_written_as_ipv4_inside_ipv6(entry: str, peer: str) -> None:
    policy = HeaderPolicy.create(trusted_proxies=(entry,))
    assert policy.client_address(peer, (("x-forwarded-for", "1.1.1.1"),)) == "1.1.1.1"
    assert policy.client_address("11.0.0.1", (("x-forwarded-for", "1.1.1.1"),)) == "11.0.0.1"


def test_a_proxy_with_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        HeaderPolicy.create(trusted_proxies=("fe80::1%eth0",))


def test_several_forwarded_fields_are_one_chain() -> None:
    policy = HeaderPolicy.create(trusted_proxies=("10.0.0.0/8",))
    headers = (("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1"))
    assert policy.client_address("10.0.0.1", headers) == "1.1.1.1"


def test_a_request_id_is_kept_only_when_harmless() -> None:
    assert request_id_for((("x-request-id", "ok-1.2:3_x"),), fixed_bytes) == "ok-1.2:3_x"
    made = request_id_for((("x-request-id", "not ok"),), fixed_bytes)
    assert made == request_id_for((), fixed_bytes) == "00010203-0405-4607-8809-0a0b0c0d0e0f"


@pytest.mark.parametrize(
    ("headers", "date"), [((), b"Sun, 06 Nov 1994 08:49:37 GMT"), ((("date", "Mon, 07 Nov 1994 00:00:00 GMT"),), None)]
)
def test_a_server_with_a_clock_dates_its_responses_once(headers: Headers, date: bytes | None) -> None:
    response = Response(status=200, headers=headers)
    policy = HeaderPolicy.create(wall=lambda: 784_111_777.9)
    date = date or headers[0][1].encode()
    assert [value for name, value in policy.apply(response, None, "id") if name == b"date"] == [date]
    lines = policy.lines(response, None, "id").split(b"\r\n")
    assert [line for line in lines if line.startswith(b"date:")] == [b"date: " + date]


def test_a_server_without_a_clock_has_no_date() -> None:
    assert b"date" not in HeaderPolicy().lines(Response(status=200), None, "id")
