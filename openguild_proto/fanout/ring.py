"""The broadcast ring in pure Python, the reference for the Cython ring (ext/ring.pyx).

Frames have consecutive indices. The ring holds the newest frames, from `tail` to `head`, bounded in events and in bytes.
A subscriber is a slot with a cursor: the index of the last frame that it has received. Publishing visits no subscriber, so
its cost does not depend on their number.
"""

from __future__ import annotations

from collections import deque

from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_EVENTS, MAX_RING_INDEX

MAX_INT = 2**31 - 1  # of C, as the compiled ring has it


class Ring:
    """A ring bounded by `capacity_events` and `capacity_bytes`. It always keeps one frame, of any size.

    `pending` skips a parked slot, which something else serves. All methods raise `LocalProtocolError` for a slot that is
    not attached.
    """

    __slots__ = (
        "_bytes",
        "_capacity_bytes",
        "_capacity_events",
        "_cursors",
        "_frames",
        "_free",
        "_handles",
        "_next",
        "_parked",
        "head",
    )

    def __init__(
        self, head: int, capacity_events: int = DEFAULT_CAPACITY_EVENTS, capacity_bytes: int = DEFAULT_CAPACITY_BYTES
    ) -> None:
        if capacity_events < 1 or capacity_bytes < 1:
            raise LocalProtocolError("a ring holds at least one event and one byte")
        if not 0 <= head <= MAX_RING_INDEX:
            raise LocalProtocolError(f"a head is within 0 and {MAX_RING_INDEX}")
        self.head = head
        self._capacity_events = capacity_events
        self._capacity_bytes = capacity_bytes
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._cursors: list[int] = []  # -1: the slot is free
        self._parked = bytearray()
        self._handles: list[int] = []
        self._free: list[int] = []
        self._next = 0  # where the next `pending` starts, so that all slots get their turn

    # --- publishing --------------------------------------------------------------------------------

    def publish(self, frame: bytes) -> int:
        """Append one frame and return its index. Drops the oldest frames when a bound is exceeded."""
        _check(frame)
        frames = self._frames
        frames.append(frame)
        self._bytes += len(frame)
        self.head += 1
        while len(frames) > self._capacity_events or (self._bytes > self._capacity_bytes and len(frames) > 1):
            self._bytes -= len(frames.popleft())
        return self.head

    def frame(self, index: int) -> bytes:
        """Return the frame at this index, which the ring must hold."""
        if not self.tail <= index <= self.head:
            raise LocalProtocolError("the ring does not hold this frame")
        return self._frames[index - self.tail]

    def replace(self, index: int, frame: bytes) -> None:
        """Replace a frame in the ring, because its content was redacted."""
        old = self.frame(index)
        _check(frame)
        self._bytes += len(frame) - len(old)
        self._frames[index - self.tail] = frame

    def resize(self, capacity_events: int, capacity_bytes: int) -> None:
        """Change the bounds. Frames beyond them are dropped at the next publish."""
        if capacity_events < 1 or capacity_bytes < 1:
            raise LocalProtocolError("a ring holds at least one event and one byte")
        self._capacity_events = capacity_events
        self._capacity_bytes = capacity_bytes

    @property
    def tail(self) -> int:
        """Index of the oldest frame, head + 1 if there is none."""
        return self.head - len(self._frames) + 1

    @property
    def nbytes(self) -> int:
        """Size of all frames in bytes."""
        return self._bytes

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    # --- slots -------------------------------------------------------------------------------------

    def attach(self, cursor: int) -> int:
        """Return a new slot whose next frame is `cursor + 1`, which the ring must hold or publish next."""
        if not self.tail - 1 <= cursor <= self.head:
            raise LocalProtocolError("the ring does not hold the frame after this cursor")
        if cursor < 0:
            raise LocalProtocolError("a cursor is not negative")
        if self._free:
            slot = self._free.pop()
            self._cursors[slot] = cursor
        else:
            slot = len(self._cursors)
            self._cursors.append(cursor)
            self._parked.append(0)
            self._handles.append(-1)
        self._parked[slot] = 0
        return slot

    def detach(self, slot: int) -> None:
        """Free the slot, which `attach` may return again at once."""
        self.cursor(slot)
        self._cursors[slot] = -1
        self._parked[slot] = 0
        self._handles[slot] = -1
        self._free.append(slot)

    def cursor(self, slot: int) -> int:
        """Return the index of the last frame that this slot has received."""
        if not 0 <= slot < len(self._cursors) or self._cursors[slot] < 0:
            raise LocalProtocolError("no such slot")
        return self._cursors[slot]

    def park(self, slot: int, parked: bool) -> None:
        """Set whether the flush skips this slot. Raises LocalProtocolError for a slot that is not attached."""
        self.cursor(slot)
        self._parked[slot] = bool(parked)

    def is_parked(self, slot: int) -> bool:
        """Return whether the flush skips this slot. Raises LocalProtocolError for a slot that is not attached."""
        self.cursor(slot)
        return bool(self._parked[slot])

    def bind(self, slot: int, handle: int) -> None:
        """Store a number with the slot until it is detached: the file descriptor for the native flush. Raises OverflowError."""
        self.cursor(slot)
        if not -MAX_INT - 1 <= handle <= MAX_INT:
            raise OverflowError("value too large to convert to int")
        self._handles[slot] = handle

    def handle(self, slot: int) -> int:
        """Return the number stored by `bind`, -1 for none."""
        self.cursor(slot)
        return self._handles[slot]

    @property
    def slots(self) -> int:
        """Number of attached slots."""
        return len(self._cursors) - len(self._free)

    # --- reading -----------------------------------------------------------------------------------

    def take(self, slot: int, max_bytes: int) -> bytes:
        """Return the slot's next frames, whole and contiguous: at least one, more while within `max_bytes`.

        b"" if there are none, or if the slot has lagged.
        """
        first = self.cursor(slot) + 1 - self.tail
        if first < 0 or first >= len(self._frames):
            return b""
        frames = self._frames
        if first == len(frames) - 1:
            return frames[first]
        span = [frames[first]]
        size = len(span[0])
        for position in range(first + 1, len(frames)):
            size += len(frames[position])
            if size > max_bytes:
                break
            span.append(frames[position])
        return b"".join(span)

    def sent(self, slot: int, nbytes: int) -> bytes:
        """Record that the kernel accepted `nbytes` of the span of `take`, and move the cursor by whole frames.

        Return the rest of a partly sent frame, which must be sent before anything else on that socket.
        """
        position = self.cursor(slot) + 1 - self.tail
        if position < 0:
            raise LocalProtocolError("the slot has lagged")
        moved, rest = 0, b""
        while nbytes > 0:
            if position + moved >= len(self._frames):
                raise LocalProtocolError("more was sent than the ring holds")
            frame = self._frames[position + moved]
            moved += 1
            rest = frame[nbytes:]
            nbytes -= len(frame)
        self._cursors[slot] += moved
        return rest

    def deliver(self, limit: int, max_bytes: int) -> list[tuple[bytes, list[int]]]:
        """Do `pending`, `take` and `sent` in one call, for transports that accept everything.

        Return (span, slots) for up to `limit` slots and move their cursors past the spans. Consecutive slots with the same
        cursor share a span.
        """
        served: list[tuple[bytes, list[int]]] = []
        place = -1
        for slot in self.pending(limit):
            cursor = self.cursor(slot)
            span = self.take(slot, max_bytes)
            self.sent(slot, len(span))
            if cursor == place:
                served[-1][1].append(slot)
            else:
                served.append((span, [slot]))
                place = cursor
        return served

    # --- queries -----------------------------------------------------------------------------------

    def pending(self, limit: int) -> list[int]:
        """Return up to `limit` slots that are behind, not parked and not lagged, in turn."""
        found: list[int] = []
        if limit <= 0:
            return found
        cursors, parked, head, oldest = self._cursors, self._parked, self.head, self.tail - 1
        count = len(cursors)
        start = self._next if self._next < count else 0
        for step in range(count):
            slot = start + step
            if slot >= count:
                slot -= count
            if oldest <= cursors[slot] < head and cursors[slot] >= 0 and not parked[slot]:
                found.append(slot)
                if len(found) == limit:
                    self._next = slot + 1
                    break
        return found

    def lagged(self) -> list[int]:
        """Return the slots whose next frame was dropped."""
        oldest = self.tail - 1
        return [slot for slot, cursor in enumerate(self._cursors) if 0 <= cursor < oldest]

    def depth(self) -> int:
        """Return how many frames the deepest slot is behind; 0 without slots."""
        lowest = min((cursor for cursor in self._cursors if cursor >= 0), default=self.head)
        return self.head - lowest


def _check(frame: bytes) -> None:
    if not isinstance(frame, bytes):
        raise TypeError("a frame is bytes")
    if not frame:
        raise LocalProtocolError("a frame is never empty")
