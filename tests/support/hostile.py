"""Peers that misbehave: an HTTPS listener on loopback with its own name, and its faulty answers."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import trustme

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import PublishedKey
from openguild_proto.federation.keys import DAY_MS, write_keys_document
from openguild_proto.federation.signatures import sign_request
from openguild_proto.http.message import Headers

WELL_KNOWN, KEYS = "/.well-known/openguild", "/federation/v1/keys"
SLOW_SECS = 30.0
GIGABYTES = 10 * 1024**3

Sending = Callable[[ssl.SSLSocket], None]


def answered(body: bytes, status: int = 200, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class HostilePeer:
    """`localhost:<port>`. Its answers are correct except on the paths in `pages`: path -> bytes, or a function that sends them."""

    def __init__(self, authority: trustme.CA, certified: str = "localhost", **pages: bytes | Sending) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified).configure_cert(self._tls)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.name = f"localhost:{self._listener.getsockname()[1]}"
        self.signer = EventSigner(self.name, "1", SigningKey(self.name.encode().ljust(32)[:32]))
        self.keys = [self.published("1", self.signer)]
        self.pages = {{"well_known": WELL_KNOWN, "keys": KEYS}[name]: page for name, page in pages.items()}
        self.asked: list[str] = []  # requested paths
        self.connections = self.sent = 0
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @staticmethod
    def published(key_id: str, signer: EventSigner, *, days: float = 7, revoked: bool = False) -> PublishedKey:
        now = time.time_ns() // 1_000_000
        return PublishedKey(
            key_id, signer.public, now - 90 * DAY_MS, now + int(days * DAY_MS), now - 1_000 if revoked else None
        )

    def _accept(self) -> None:
        while not self._over.is_set():
            with suppress(OSError):
                plain, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError, ValueError, IndexError), plain:  # the other side disconnects
            plain.settimeout(SLOW_SECS)
            with self._tls.wrap_socket(plain, server_side=True) as stream:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += stream.recv(65_536)
                path = head.decode("latin-1").split(" ")[1]
                self.asked.append(path)
                page = self.pages.get(path) or self.honest(path)
                if isinstance(page, bytes):
                    stream.sendall(page)
                    self.sent += len(page)
                else:
                    page(stream)

    def honest(self, path: str) -> bytes:
        if path == WELL_KNOWN:
            return answered(msgspec.json.encode({"base_url": f"https://{self.name}", "versions": ["v1"]}))
        if path == KEYS:
            return answered(self.document())
        return answered(b"", 404)

    def document(
        self, *keys: PublishedKey, name: str | None = None, signers: tuple[EventSigner, ...] | None = None
    ) -> bytes:
        by = (self.signer,) if signers is None else signers
        return msgspec.json.encode(write_keys_document(name or self.name, keys or self.keys, by))

    def endless(self, head: bytes, part: bytes) -> Sending:
        """Return a function that sends `head`, then `part` until the other side leaves or has read 64 MiB."""

        def send(stream: ssl.SSLSocket) -> None:
            stream.sendall(head)
            while self.sent < 64 * 1024 * 1024:
                stream.sendall(part)
                self.sent += len(part)

        return send

    def slow(self, head: bytes) -> Sending:
        """Return a function that sends `head`, then a byte every half second."""

        def send(stream: ssl.SSLSocket) -> None:
            stream.sendall(head)
            while not self._over.wait(0.5):
                stream.sendall(b" ")

        return send

    def close(self) -> None:
        self._over.set()
        self._listener.close()


def signed(
    signer: EventSigner, method: str, target: str, body: bytes = b"", *, authority: str = "b.example", ahead: int = 0,
    nonce: str | None = None,
) -> Headers:  # fmt: skip
    """Return the headers of a request that `signer` signs now."""
    moment = time.time_ns()
    return sign_request(
        method,
        target,
        authority,
        body,
        signer=signer,
        created=moment // 1_000_000_000 + ahead,
        nonce=nonce or f"{moment:032x}",
    )[0]


def misbehave(peer: HostilePeer, case: str) -> None:
    """Give the peer one of the faults in PAGES."""
    path, sent = _pages(peer)[case]
    peer.pages[path] = sent


def _pages(peer: HostilePeer) -> dict[str, tuple[str, bytes | Sending]]:
    name = peer.name
    other = EventSigner(name, "1", SigningKey(b"o" * 32))
    return {
        "well-known: 10 GB declared": (WELL_KNOWN, answered(b"").replace(b": 0", f": {GIGABYTES}".encode())),
        "well-known: without an end": (
            WELL_KNOWN, peer.endless(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4_096 + b"\r\n"),
        ),
        "well-known: no JSON": (WELL_KNOWN, answered(b"<html>")),
        "well-known: nested": (WELL_KNOWN, answered(b"[" * 4_000)),
        "well-known: http": (WELL_KNOWN, answered(b'{"base_url":"http://localhost","versions":["v1"]}')),
        "well-known: a path": (WELL_KNOWN, answered(f'{{"base_url":"https://{name}/x","versions":["v1"]}}'.encode())),
        "well-known: another version": (WELL_KNOWN, answered(f'{{"base_url":"https://{name}","versions":["v9"]}}'.encode())),
        "well-known: 500": (WELL_KNOWN, answered(b"", 500)),
        "well-known: redirects for ever": (WELL_KNOWN, answered(b"", 302, f"location: https://{name}{WELL_KNOWN}")),
        "well-known: a redirect to http": (WELL_KNOWN, answered(b"", 302, f"location: http://{name}{WELL_KNOWN}")),
        "well-known: a redirect to a file": (WELL_KNOWN, answered(b"", 302, "location: file:///etc/passwd")),
        "well-known: no HTTP": (WELL_KNOWN, b"SSH-2.0-x\r\n\r\n"),
        "well-known: a head without an end": (WELL_KNOWN, peer.endless(b"HTTP/1.1 200 X\r\n", b"x: y\r\n" * 1_000)),
        "keys: 10 GB declared": (KEYS, answered(b"").replace(b": 0", f": {GIGABYTES}".encode())),
        "keys: of another server": (KEYS, answered(peer.document(name="victim.example"))),
        "keys: not signed": (KEYS, answered(peer.document(signers=()))),
        "keys: signed by another": (KEYS, answered(peer.document(signers=(other,)))),
        "keys: too many": (
            KEYS, answered(peer.document(*[peer.published(f"k{number}", peer.signer) for number in range(65)], signers=())),
        ),
        "keys: all revoked": (KEYS, answered(peer.document(peer.published("1", peer.signer, revoked=True)))),
        "keys: a redirect": (KEYS, answered(b"", 302, f"location: https://{name}/elsewhere")),
    }  # fmt: skip


PAGES = tuple(
    f"{path}: {what}"
    for path, cases in {
        "well-known": (
            "10 GB declared", "without an end", "no JSON", "nested", "http", "a path", "another version", "500",
            "redirects for ever", "a redirect to http", "a redirect to a file", "no HTTP", "a head without an end",
        ),
        "keys": (
            "10 GB declared", "of another server", "not signed", "signed by another", "too many", "all revoked", "a redirect",
        ),
    }.items()
    for what in cases
)  # fmt: skip
