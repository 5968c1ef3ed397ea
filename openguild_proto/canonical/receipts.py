"""The receipt chain of a log: each receipt takes in the one before, so that an owner who shows two histories can be convicted.

chain(n) is the BLAKE3-256 hash of chain(n - 1), the log, its epoch, the sequence n and the id of the event there. It begins at
the sequence where the log was first mirrored. A receipt is the owner's signature of a chain value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from blake3 import blake3

from openguild_proto.canonical.keys import EventSigner

_CONTEXT = b"openguild receipt 1\0"


def first_link(log_id: str, epoch: int, sequence: int) -> bytes:
    """Return the chain value with which the chain of a log begins, at the sequence `sequence`."""
    return blake3(_CONTEXT + b"begin" + _place(log_id, epoch, sequence)).digest()


def next_link(chain: bytes, log_id: str, epoch: int, sequence: int, event_id: str) -> bytes:
    """Return the chain value at `sequence`. `chain`: that at the sequence before."""
    return blake3(_CONTEXT + chain + _place(log_id, epoch, sequence) + event_id.encode()).digest()


def chain_over(chain: bytes, log_id: str, epoch: int, events: Iterable[tuple[int, str]]) -> bytes:
    """Return the chain value behind `events`, (sequence, event id) in order."""
    for sequence, event_id in events:
        chain = next_link(chain, log_id, epoch, sequence, event_id)
    return chain


def receipt_message(chain: bytes, log_id: str, epoch: int, sequence: int) -> bytes:
    """Return what a receipt signs. It is longer than the hash of an event, so no receipt is the signature of one."""
    return _CONTEXT + b"receipt" + chain + _place(log_id, epoch, sequence)


def sign_receipt(signer: EventSigner, chain: bytes, log_id: str, epoch: int, sequence: int) -> bytes:
    """Return the receipt of the chain value at `sequence`: 64 bytes."""
    return signer.sign_bytes(receipt_message(chain, log_id, epoch, sequence))


def _place(log_id: str, epoch: int, sequence: int) -> bytes:
    return log_id.encode() + struct.pack(">QQ", epoch, sequence)
