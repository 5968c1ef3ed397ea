"""Names of servers and of remote users have one form each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.federation.server_names import NameFault, RemoteName, authority_of, parse_key_id, parse_server_name

USER = "ec7c5138-ee1a-4112-95ef-e53514b670c2"
NAMES = [
    "a", "example.org", "chat.example.org:8448", "xn--bcher-kva.example", "127.0.0.1", "127.0.0.1:8081", "[::1]",
    "[2001:db8::1]:8448", "localhost:1", "a--b.example", f"{'a' * 63}.org",
]  # fmt: skip
NO_NAMES = [
    "", "Example.org", "example.org.", ".example.org", "a..b", "-a.org", "a-.org", "a_b.org", "exa mple.org", "example.org:0",
    "example.org:65536", "example.org:08", "example.org:443", "example.org:", ":8080", "http://example.org", "example.org/x",
    "user@example.org", "[::1", "::1", "[0:0::1]", "[2001:DB8::1]", "[fe80::1%eth0]",
    "[::ffff:1.2.3.4.5]", "[::ffff:7f00:1]", "[::ffff:127.0.0.1]", "1.2.3", "2130706433",
    "0x7f.1", "1.2.3.04", "256.1.1.1", "bücher.example", f"{'a' * 64}.org", f"{'a.' * 128}org", "example.org\n", "a.0x1",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_servers(name: str) -> None:
    assert parse_server_name(name) == name
    assert RemoteName.parse(f"@{USER}:{name}") == RemoteName(USER, name)


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_of_a_server(name: str) -> None:
    with pytest.raises(NameFault):
        parse_server_name(name)
    with pytest.raises(NameFault):
        RemoteName.parse(f"@{USER}:{name}")


@pytest.mark.parametrize(
    "text",
    [USER, f"@{USER}", f"{USER}:a.org", f"@{USER.upper()}:a.org", f"@{USER.replace('-', '')}:a.org", "@:a.org", "@al:a.org"],
)  # fmt: skip
def test_what_is_no_remote_user(text: str) -> None:
    with pytest.raises(NameFault):
        RemoteName.parse(text)


@given(st.uuids(version=4), st.sampled_from(NAMES))
def test_a_remote_user_has_one_text(user_id: object, server: str) -> None:
    user = RemoteName(str(user_id), server)
    assert RemoteName.parse(str(user)) == user


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_a_fault(text: str) -> None:
    for parse in (parse_server_name, parse_key_id, RemoteName.parse, authority_of):
        try:
            parse(text)  # type: ignore[operator]  # four functions of a text
        except NameFault:
            continue


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://Example.org", "example.org"),
        ("https://example.org:443/", "example.org"),
        ("https://example.org:8448", "example.org:8448"),
        ("http://example.org:80", "example.org"),
        ("http://127.0.0.1:8081", "127.0.0.1:8081"),
        ("https://[2001:db8::1]:8448", "[2001:db8::1]:8448"),
    ],
)
def test_the_authority_of_a_url(url: str, authority: str) -> None:
    assert authority_of(url) == authority


@pytest.mark.parametrize(
    "url",
    [
        "example.org", "ftp://example.org", "https://", "https://u@example.org", "https://example.org/path",
        "https://example.org?q", "https://example.org#f", "https://example.org:99999", "https://[::1", "https://a_b.org",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(NameFault):
        authority_of(url)
