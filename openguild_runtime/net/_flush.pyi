"""Types of the compiled flush (ext/flush.pyx)."""

from openguild_proto.fanout.ring import Ring

def flush(
    ring: Ring, limit: int, max_bytes: int, max_secs: float, gates: bytearray | None = None
) -> tuple[int, int, list[tuple[int, bytes, int]]]: ...
