"""What `nats.url` may be: one server or several, each with its login, percent-encoded."""

from __future__ import annotations

import pytest

from openguild_runtime.config.nats_servers import MAX_SERVERS, NatsServer, parse_servers


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nats://a", [NatsServer("a", 4222, False)]),
        ("tls://[::1]:4223", [NatsServer("[::1]", 4223, True)]),
        ("nats://u:p%40%2F%25%3A%2C@h:1", [NatsServer("h", 1, False, "u", "p@/%:,")]),
        ("nats://us%40er%3A:@h", [NatsServer("h", 4222, False, "us@er:", "")]),
        ("nats://to%2Fken@h", [NatsServer("h", 4222, False, token="to/ken")]),
        ("nats://u:p,w@h", [NatsServer("h", 4222, False, "u", "p,w")]),
        (
            "nats://a:1, tls://u:1,2@b:2,nats://c",
            [NatsServer("a", 1, False), NatsServer("b", 2, True, "u", "1,2"), NatsServer("c", 4222, False)],
        ),
    ],
)  # fmt: skip
def test_what_is_taken(text: str, servers: list[NatsServer]) -> None:
    assert list(parse_servers(text)) == servers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with nats:// or tls://"),
        ("host:4222", "does not begin with nats:// or tls://"),
        ("ws://hunter2@h", "WebSocket URLs of NATS are not supported"),
        ("wss://h", "WebSocket URLs of NATS are not supported"),
        ("nats://a:4222,b:4222", "must begin with nats:// or tls://"),
        ("nats://a,", "must begin with nats:// or tls://"),
        ("nats://a,ws://b", "its server 2 of 2: WebSocket URLs of NATS are not supported"),
        ("nats://u:hunter2@", "has no host"),
        ("nats://:hunter2@h", "has no user"),
        ("nats://u:hun/ter2@h", "write / as %2F"),
        ("nats://u:hunter2%FF@h", "UTF-8"),
        ("nats://::1:4222", "in brackets"),
        ("nats://[::1", "in brackets"),
        ("nats://[:::::]", "in brackets"),
        ("nats://h:0", "port"),
        (",".join(["nats://h"] * (MAX_SERVERS + 1)), "more than 64"),
    ],
)
def test_what_is_refused_says_the_mend_and_no_secret(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("[", r"\[")) as refused:
        parse_servers(text)
    assert "hunter2" not in str(refused.value)


def test_no_secret_is_shown() -> None:
    server = parse_servers("nats://user:hunter2@h")[0]
    assert "hunter2" not in f"{server!r} {server} {server.url} {server.name}"
