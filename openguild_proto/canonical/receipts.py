"""The receipt chain of a log: each value includes the one before, so an owner that signs two histories can be proven wrong.

chain(n) is the BLAKE3-256 hash of chain(n - 1), the log, its epoch, the sequence n and the id of the event there. The chain begins
at the sequence from which the log was first mirrored. A receipt is the owner's signature of a chain value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from blake3 import blake3

from openguild_proto.canonical.keys import EventSigner

_CONTEXT = b"openguild receipt 1\0"


def first_link(log_id: str, epoch: int, sequence: int) -> bytes:
    """Return the first chain value of a log, at the sequence from which it is mirrored."""
    return blake3(_CONTEXT + b"begin" + _place(log_id, epoch, sequence)).digest()


def next_link(chain: bytes, log_id: str, epoch: int, sequence: int, event_id: str) -> bytes:
    """Return the chain value at `sequence`. `chain`: the value at the sequence before."""
    return blake3(_CONTEXT + chain + _place(log_id, epoch, sequence) + event_id.encode()).digest()


def chain_over(chain: bytes, log_id: str, epoch: int, events: Iterable[tuple[int, str]]) -> bytes:
    """Return the chain value after `events`, pairs of (sequence, event id) in order."""
    for sequence, event_id in events:
        chain = next_link(chain, log_id, epoch, sequence, event_id)
    return chain


def receipt_message(chain: bytes, log_id: str, epoch: int, sequence: int) -> bytes:
    """Return the message that a receipt signs. It is longer than an event's hash, so it is never a signature of an event."""
    return _CONTEXT + b"receipt" + chain + _place(log_id, epoch, sequence)


def sign_receipt(signer: EventSigner, chain: bytes, log_id: str, epoch: int, sequence: int) -> bytes:
    """Return the receipt of the chain value at `sequence`, a 64-byte signature."""
    return signer.sign_bytes(receipt_message(chain, log_id, epoch, sequence))


def _place(log_id: str, epoch: int, sequence: int) -> bytes:
    return log_id.encode() + struct.pack(">QQ", epoch, sequence)
