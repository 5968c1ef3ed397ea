"""Statements by which a guild's owner hands it over: the signed bytes, and which statement is valid (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from openguild_proto.canonical.encode import CanonicalError, canonical_json
from openguild_proto.canonical.keys import EventSigner, decode_unpadded, encode_unpadded
from openguild_proto.canonical.signing import verify
from openguild_proto.federation.keys import DAY_MS
from openguild_proto.federation.server_names import NameFault, parse_server_name
from openguild_proto.mirror_records import Handover, Ownership

MOVE, SUCCESSION = "move", "succession"
DOMAIN = b"openguild-handover\n"
MOVE_MS = 3_650 * DAY_MS  # long, because servers that were away follow a move later
SUCCESSION_MS = 366 * DAY_MS
REVOKED = "it was revoked"
MAX_SIGNATURES = 4  # ours: usually the current and the previous key


def signed_handover(handover: Handover, signers: Iterable[EventSigner]) -> Handover:
    """Return the statement with the signatures of the owner's keys."""
    signed = handover_bytes(handover)
    signatures = {signer.key_id: encode_unpadded(signer.sign_bytes(signed)) for signer in signers}
    return msgspec.structs.replace(handover, signatures=signatures)


def handover_bytes(handover: Handover) -> bytes:
    """Return the bytes to sign. No event, receipt or keys document begins with the same bytes."""
    members = msgspec.to_builtins(msgspec.structs.replace(handover, signatures={}))
    return DOMAIN + canonical_json({**members, "serial": handover.serial})


def is_signed(handover: Handover, keys: Mapping[str, bytes]) -> bool:
    """Return whether one of the owner's `keys`, by `ed25519:<id>`, has signed the statement."""
    if not 0 < len(handover.signatures) <= MAX_SIGNATURES:
        return False
    try:
        signed = handover_bytes(handover)
    except CanonicalError:
        return False
    for key_id, text in handover.signatures.items():
        public = keys.get(f"ed25519:{key_id}")
        try:
            signature = decode_unpadded(text)
        except ValueError:
            continue
        if public is not None and verify(public, signed, signature):
            return True
    return False


def names_servers(handover: Handover) -> bool:
    """Return whether the names of the owner and of its successor are valid server names."""
    try:
        parse_server_name(handover.owner)
        parse_server_name(handover.to)
    except NameFault:
        return False
    return True


def chain_to(to: str, handovers: Iterable[Handover], owners: Mapping[int, str]) -> tuple[Handover, ...]:
    """Return the consecutive statements that lead from one of `owners`, by term, to `to` as the newest owner, or () if none do.

    Signatures are not checked.
    """
    by_term = {each.term: each for each in handovers}
    newest = max((term for term, each in by_term.items() if each.to == to), default=0)
    chain: tuple[Handover, ...] = ()
    while (each := by_term.get(newest)) is not None and each.to == (chain[0].owner if chain else to):
        chain, newest = (each, *chain), newest - 1
        if owners.get(newest) == each.owner:
            return chain
    return ()


def handover_problem(handover: Handover, ownership: Ownership, owner: str, now_ms: int) -> str | None:
    """Return why a statement is not valid for a guild that `owner` is known to own; None: it is valid, if it is signed.

    Only a statement for the next term is valid. So it is valid once, and not after another hand-over.
    """
    if handover.kind not in {MOVE, SUCCESSION} or handover.guild_id != ownership.guild_id:
        return "it has another kind or is for another guild"
    if handover.owner != owner:
        return "it is not from the owner"
    if handover.to == owner:
        return "it names the owner itself"
    if handover.term != ownership.term + 1:
        return "it is for another term"
    if handover.kind == SUCCESSION and handover.serial < ownership.serial:
        return REVOKED
    if now_ms >= handover.expires_at_ms:
        return "it has expired"
    return None
