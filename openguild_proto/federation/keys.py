"""The keys of servers: the choice of keys for verification, and the document that publishes them (PROTOCOL 16.1)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from openguild_proto.canonical.encode import canonical_json
from openguild_proto.canonical.keys import EventSigner, KeyFormatError, encode_unpadded, parse_public
from openguild_proto.canonical.signing import verify
from openguild_proto.effects.federation import PublishedKey
from openguild_proto.federation.faults import Fault, KeysFault, SignatureFault
from openguild_proto.federation.server_names import NameFault, parse_key_id
from openguild_proto.limits import MAX_TIME_MS
from openguild_proto.timestamps import from_millis, to_millis

DAY_MS = 86_400_000
OVERLAP_MS = 7 * DAY_MS  # PROTOCOL 16.1.5: a key stays valid for this time after its last use
MAX_AHEAD_MS = 30 * DAY_MS  # ours: validity that another server may announce; its keys are read again within an hour
TOLERANCE_MS = 600_000  # ours: around the lifetime of a key
MAX_KEYS = 200  # ours: of another server, ever
MAX_DOCUMENT_BYTES = 65_536  # ours: 200 keys of 260 bytes, and signatures
KEYS_DOMAIN = b"openguild-keys\n"

_Text = Annotated[str, Meta(max_length=128)]


class KeyLine(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A key in the document. Keys are base64url without padding; times are RFC 3339."""

    key_id: _Text
    public_key: _Text
    not_before: _Text
    not_after: _Text
    revoked_at: _Text | None = None


class KeysDocument(msgspec.Struct, frozen=True, gc=False):
    """`GET /federation/v1/keys`. `signatures`: by key id, in base64."""

    server: Annotated[str, Meta(max_length=255)]
    keys: Annotated[tuple[KeyLine, ...], Meta(max_length=MAX_KEYS)]
    signatures: dict[str, _Text]


_decoder = msgspec.json.Decoder(KeysDocument)


def request_key(keys: Iterable[PublishedKey], key_id: str, now_ms: int) -> bytes:
    """Return the public key that verifies a request now. Raises SignatureFault."""
    key = next((key for key in keys if key.key_id == key_id), None)
    if key is None or now_ms < key.not_before - TOLERANCE_MS:
        raise SignatureFault(Fault.UNKNOWN_KEY)
    if key.revoked_at is not None:
        raise SignatureFault(Fault.REVOKED_KEY)
    if now_ms > key.not_after:
        raise SignatureFault(Fault.EXPIRED_KEY)
    return key.public_key


def event_keys(keys: Iterable[PublishedKey], at_ms: int) -> dict[str, bytes]:
    """Return the keys that verify an event of that time, by their names in `signatures`, such as `ed25519:1`.

    A revoked key verifies events from before its revocation. The start of a key does not matter, because the clock of its server
    may have been set back since.
    """
    return {
        f"ed25519:{key.key_id}": key.public_key
        for key in keys
        if at_ms <= key.not_after + TOLERANCE_MS and (key.revoked_at is None or at_ms < key.revoked_at)
    }


def revocation_ms(key: PublishedKey, now_ms: int) -> int:
    """Return the time from which a key of this server is revoked.

    It is not before the key's last use, because logs contain what it has signed, and this clock may have been set back since.
    """
    return max(now_ms, key.not_after - OVERLAP_MS + 1)


def pinned_key(key_id: str, public_key: bytes) -> PublishedKey:
    """Return a key of the configuration, which is valid at any time."""
    return PublishedKey(key_id, public_key, not_before=0, not_after=MAX_TIME_MS)


def with_pinned(keys: Iterable[PublishedKey], pinned: Iterable[PublishedKey]) -> tuple[PublishedKey, ...]:
    """Return known and pinned keys. If two have the same id, return the pinned one, unless the same key is revoked."""
    by_id = {key.key_id: key for key in keys}
    for key in pinned:
        known = by_id.get(key.key_id)
        if known is None or known.public_key != key.public_key or known.revoked_at is None:
            by_id[key.key_id] = key
    return tuple(by_id.values())


# --- the document ------------------------------------------------------------------------------------


def write_keys_document(server: str, keys: Iterable[PublishedKey], signers: Iterable[EventSigner]) -> KeysDocument:
    """Return the document of this server, signed by each of `signers`."""
    lines = tuple(
        KeyLine(
            key.key_id,
            encode_unpadded(key.public_key),
            from_millis(key.not_before),
            from_millis(key.not_after),
            from_millis(key.revoked_at) if key.revoked_at is not None else None,
        )
        for key in keys
    )
    signed = _signed_bytes(server, lines)
    signatures = {signer.key_id: base64.b64encode(signer.sign_bytes(signed)).decode("ascii") for signer in signers}
    return KeysDocument(server, lines, signatures)


def _signed_bytes(server: str, lines: Sequence[KeyLine]) -> bytes:
    return KEYS_DOMAIN + canonical_json({"server": server, "keys": msgspec.to_builtins(lines)})


def read_keys_document(
    server: str,
    body: bytes,
    *,
    known: Iterable[PublishedKey] = (),
    pinned: Iterable[PublishedKey] = (),
    now_ms: int,
) -> tuple[PublishedKey, ...]:
    """Return all keys of `server`: those in its document, and `known` ones that it no longer lists. Raises KeysFault.

    The document must be signed by one of its own keys, and by a pinned key if there are any. A known id keeps its key, and
    a revoked key stays revoked.
    """
    if len(body) > MAX_DOCUMENT_BYTES:
        raise KeysFault("the document is too large")
    try:
        document = _decoder.decode(body)
        listed = {line.key_id: _key(line, now_ms) for line in document.keys}
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, NameFault, KeyFormatError) as fault:
        raise KeysFault(f"the document is invalid: {fault}") from None
    if document.server != server:
        raise KeysFault("the document belongs to another server")
    if len(listed) < len(document.keys):
        raise KeysFault("two keys have the same id")
    _check_signatures(document, listed, pinned, now_ms)
    return _merge(known, listed)


def _key(line: KeyLine, now_ms: int) -> PublishedKey:
    not_before, not_after = to_millis(line.not_before), to_millis(line.not_after)
    revoked_at = to_millis(line.revoked_at) if line.revoked_at is not None else None
    if not_before is None or not_after is None or (revoked_at is None) != (line.revoked_at is None):
        raise KeysFault("a time is not RFC 3339")
    not_after = min(not_after, now_ms + MAX_AHEAD_MS)
    return PublishedKey(parse_key_id(line.key_id), parse_public(line.public_key), not_before, not_after, revoked_at)


def _check_signatures(
    document: KeysDocument, listed: dict[str, PublishedKey], pinned: Iterable[PublishedKey], now_ms: int
) -> None:
    signed = _signed_bytes(document.server, document.keys)
    pins = {key.key_id: key.public_key for key in pinned}
    living, endorsed = False, not pins
    for key_id, text in document.signatures.items():
        try:
            signature = base64.b64decode(text, validate=True)
        except ValueError:
            raise KeysFault("a signature is not base64") from None
        key = listed.get(key_id)
        if key is None or not verify(key.public_key, signed, signature):
            raise KeysFault("a signature is not made with a key of the document")
        if key.revoked_at is None and now_ms <= key.not_after:
            living = True
            endorsed = endorsed or pins.get(key_id) == key.public_key
    if not living:
        raise KeysFault("no valid key has signed the document")
    if not endorsed:
        raise KeysFault("no pinned key has signed the document")


def _merge(known: Iterable[PublishedKey], listed: dict[str, PublishedKey]) -> tuple[PublishedKey, ...]:
    merged = dict(listed)
    for key in known:
        new = listed.get(key.key_id)
        if new is None:
            merged[key.key_id] = key
        elif new.public_key != key.public_key:
            raise KeysFault("the key of a known id has changed")
        else:
            revoked = [at for at in (key.revoked_at, new.revoked_at) if at is not None]
            merged[key.key_id] = PublishedKey(
                key.key_id,
                key.public_key,
                min(key.not_before, new.not_before),
                max(key.not_after, new.not_after),
                min(revoked, default=None),
            )
    if len(merged) > MAX_KEYS:
        raise KeysFault(f"more than {MAX_KEYS} keys")
    return tuple(sorted(merged.values(), key=lambda key: (-key.not_before, key.key_id)))
