# cython: language_level=3, embedsignature=True
"""The broadcast ring in Cython. It behaves like openguild_proto/fanout/ring.py, which documents it.

Frames are stored back to back in one arena, so that a subscriber's span is contiguous and needs one send(2). The arena starts
with 512 bytes and grows geometrically, so that a quiet channel needs little memory. When the arena's end is reached, the frames
are moved to its front. After a move, the arena is at least twice as large as its frames, so that each byte is moved about once
and publishing takes amortised O(1).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import MAX_RING_INDEX

cdef extern from "<assert.h>" nogil:
    void c_assert "assert" (bint)  # only active in the debug build (OPENGUILD_DEBUG_EXT=1)

cdef Py_ssize_t FIRST_ARENA_BYTES = 512
cdef Py_ssize_t FIRST_SLOTS = 4
cdef Py_ssize_t FIRST_INDEX = 8


cdef class Ring:
    """See openguild_proto.fanout.ring.Ring."""

    def __cinit__(self, head, Py_ssize_t capacity_events=256, Py_ssize_t capacity_bytes=1 << 20):
        if capacity_events < 1 or capacity_bytes < 1:
            raise LocalProtocolError("a ring holds at least one event and one byte")
        if not 0 <= head <= MAX_RING_INDEX:  # the modulo of a negative index would be wrong
            raise LocalProtocolError(f"a head is within 0 and {MAX_RING_INDEX}")
        self.head = head
        self._capacity_events = capacity_events
        self._capacity_bytes = capacity_bytes
        self._free = []
        # all other members are zero: arena, index and slots are allocated on first use

    def __dealloc__(self):
        free(self._arena)
        free(self._offsets)
        free(self._cursors)
        free(self._parked)
        free(self._handles)

    # --- publishing --------------------------------------------------------------------------------

    cdef Py_ssize_t _offset(self, long long index) noexcept nogil:
        c_assert(self.head - self._count < index <= self.head)
        return self._offsets[index % self._index_size]

    cdef Py_ssize_t _length(self, long long index) noexcept nogil:
        cdef Py_ssize_t end = self._end if index == self.head else self._offset(index + 1)
        cdef Py_ssize_t begin = self._offset(index)
        c_assert(self._start <= begin < end <= self._end <= self._arena_size)
        return end - begin

    cdef int _make_room(self, Py_ssize_t size) except -1:
        """Make room for a frame of `size` bytes after `_end` and for its index entry."""
        cdef Py_ssize_t held = self._end - self._start
        cdef Py_ssize_t wanted, new_size, i, shift
        cdef char* arena
        cdef Py_ssize_t* offsets
        cdef long long index
        if self._count + 1 > self._index_size:
            new_size = FIRST_INDEX if self._index_size == 0 else self._index_size * 2
            offsets = <Py_ssize_t*>malloc(new_size * sizeof(Py_ssize_t))
            if offsets == NULL:
                raise MemoryError
            for i in range(self._count):
                index = self.head - self._count + 1 + i
                offsets[index % new_size] = self._offsets[index % self._index_size]
            free(self._offsets)
            self._offsets = offsets
            self._index_size = new_size
        if self._end + size <= self._arena_size:
            return 0
        wanted = (held + size) * 2
        if wanted > self._arena_size or wanted < self._arena_size // 8:  # shrink after a burst
            new_size = FIRST_ARENA_BYTES
            while new_size < wanted:
                new_size *= 2
            arena = <char*>malloc(new_size)
            if arena == NULL:
                raise MemoryError
            if held:
                memcpy(arena, self._arena + self._start, held)
            free(self._arena)
            self._arena = arena
            self._arena_size = new_size
        else:
            memmove(self._arena, self._arena + self._start, held)
        shift = self._start
        for i in range(self._count):
            index = self.head - self._count + 1 + i
            self._offsets[index % self._index_size] -= shift
        self._start = 0
        self._end = held
        return 0

    def publish(self, bytes frame not None):
        """Append one frame and return its index. Drops the oldest frames if a bound would be exceeded."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frame)
        if size == 0:
            raise LocalProtocolError("a frame is never empty")
        # drop the oldest frames first, so that their room can be reused
        while self._count > 0 and (
            self._count + 1 > self._capacity_events or self._end - self._start + size > self._capacity_bytes
        ):
            self._start += self._length(self.head - self._count + 1)
            self._count -= 1
        if self._count == 0:
            self._start = self._end = 0
        self._make_room(size)
        c_assert(self._count < self._index_size and self._end + size <= self._arena_size)
        self._offsets[(self.head + 1) % self._index_size] = self._end
        memcpy(self._arena + self._end, PyBytes_AS_STRING(frame), size)
        self._end += size
        self._count += 1
        self.head += 1
        return self.head

    def frame(self, long long index):
        """Return the frame at this index, which the ring must hold."""
        if not self.head - self._count < index <= self.head:
            raise LocalProtocolError("the ring does not hold this frame")
        return PyBytes_FromStringAndSize(self._arena + self._offset(index), self._length(index))

    def replace(self, long long index, bytes frame not None):
        """Replace a frame that the ring holds. The bytes of the old frame are erased from the arena."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frame)
        cdef Py_ssize_t grows, begin, behind
        cdef long long later
        if not self.head - self._count < index <= self.head:
            raise LocalProtocolError("the ring does not hold this frame")
        if size == 0:
            raise LocalProtocolError("a frame is never empty")
        grows = size - self._length(index)
        if grows > 0:
            self._make_room(grows)
        begin = self._offset(index)
        behind = begin + self._length(index)
        c_assert(self._end + grows <= self._arena_size)
        memmove(self._arena + behind + grows, self._arena + behind, self._end - behind)
        memcpy(self._arena + begin, PyBytes_AS_STRING(frame), size)
        self._end += grows
        for later in range(index + 1, self.head + 1):
            self._offsets[later % self._index_size] += grows
        memset(self._arena, 0, self._start)  # erase dropped frames and remains of moves
        memset(self._arena + self._end, 0, self._arena_size - self._end)

    def resize(self, Py_ssize_t capacity_events, Py_ssize_t capacity_bytes):
        """Change the bounds. Frames beyond them are dropped at the next publish."""
        if capacity_events < 1 or capacity_bytes < 1:
            raise LocalProtocolError("a ring holds at least one event and one byte")
        self._capacity_events = capacity_events
        self._capacity_bytes = capacity_bytes

    @property
    def tail(self):
        """The index of the oldest frame, or head + 1 if there is none."""
        return self.head - self._count + 1

    @property
    def nbytes(self):
        """The size of all frames in bytes."""
        return self._end - self._start

    @property
    def allocated(self):
        """The bytes allocated for frames, index and slots."""
        return self._arena_size + self._index_size * sizeof(Py_ssize_t) + self._slot_size * (sizeof(long long) + 1 + sizeof(int))

    def __len__(self):
        return self._count

    # --- slots -------------------------------------------------------------------------------------

    cdef int _check(self, Py_ssize_t slot) except -1:
        if slot < 0 or slot >= self._slot_count or self._cursors[slot] < 0:
            raise LocalProtocolError("no such slot")
        return 0

    def attach(self, long long cursor):
        """Return a new slot whose next frame is `cursor + 1`, which the ring must hold or publish next."""
        cdef Py_ssize_t slot, new_size
        cdef long long* cursors
        cdef char* parked
        cdef int* handles
        if not self.head - self._count <= cursor <= self.head:
            raise LocalProtocolError("the ring does not hold the frame after this cursor")
        if cursor < 0:
            raise LocalProtocolError("a cursor is not negative")
        if self._free:
            slot = self._free.pop()
        else:
            slot = self._slot_count
            if slot == self._slot_size:
                new_size = FIRST_SLOTS if self._slot_size == 0 else self._slot_size * 2
                cursors = <long long*>realloc(self._cursors, new_size * sizeof(long long))
                if cursors == NULL:
                    raise MemoryError
                self._cursors = cursors
                parked = <char*>realloc(self._parked, new_size)
                if parked == NULL:
                    raise MemoryError
                self._parked = parked
                handles = <int*>realloc(self._handles, new_size * sizeof(int))
                if handles == NULL:
                    raise MemoryError
                self._handles = handles
                self._slot_size = new_size
            self._slot_count += 1
        self._cursors[slot] = cursor
        self._parked[slot] = 0
        self._handles[slot] = -1
        self._attached += 1
        return slot

    def detach(self, Py_ssize_t slot):
        """Free the slot, which `attach` may return again at once."""
        self._check(slot)
        self._cursors[slot] = -1
        self._parked[slot] = 0
        self._handles[slot] = -1
        self._attached -= 1
        self._free.append(slot)

    def cursor(self, Py_ssize_t slot):
        """Return the index of the last frame that this slot has received."""
        self._check(slot)
        return self._cursors[slot]

    def park(self, Py_ssize_t slot, bint parked):
        self._check(slot)
        self._parked[slot] = parked

    def is_parked(self, Py_ssize_t slot):
        self._check(slot)
        return self._parked[slot] != 0

    def bind(self, Py_ssize_t slot, int handle):
        """Store a number with the slot until it is detached."""
        self._check(slot)
        self._handles[slot] = handle

    def handle(self, Py_ssize_t slot):
        """Return the number stored by `bind`, or -1."""
        self._check(slot)
        return self._handles[slot]

    @property
    def slots(self):
        """The number of attached slots."""
        return self._attached

    # --- reading -----------------------------------------------------------------------------------

    def take(self, Py_ssize_t slot, Py_ssize_t max_bytes):
        """Return the slot's next whole frames: at least one if there are any, and more up to `max_bytes`."""
        cdef long long first
        cdef Py_ssize_t begin, end
        self._check(slot)
        first = self._cursors[slot] + 1
        if first <= self.head - self._count or first > self.head:
            return b""
        begin = self._offset(first)
        end = span_end(self, first, max_bytes)
        return PyBytes_FromStringAndSize(self._arena + begin, end - begin)

    def sent(self, Py_ssize_t slot, Py_ssize_t nbytes):
        """Record that `nbytes` of the span of `take` were sent. Moves the cursor by frames and returns the rest of a cut frame."""
        cdef long long index
        cdef Py_ssize_t length, begin, behind
        self._check(slot)
        index = self._cursors[slot] + 1
        if index <= self.head - self._count:
            raise LocalProtocolError("the slot has lagged")
        if nbytes <= 0:
            return b""
        behind = self._end - self._offset(index) if index <= self.head else 0
        if nbytes > behind:
            raise LocalProtocolError("more was sent than the ring holds")
        if nbytes == behind:
            self._cursors[slot] = self.head  # the common case: the whole span
            return b""
        while nbytes > 0:
            length = self._length(index)
            self._cursors[slot] = index
            if nbytes < length:
                begin = self._offset(index) + nbytes
                return PyBytes_FromStringAndSize(self._arena + begin, length - nbytes)
            nbytes -= length
            index += 1
        return b""

    def deliver(self, Py_ssize_t limit, Py_ssize_t max_bytes):
        """Do `pending`, `take` and `sent` in one call: return (span, slots). Consecutive slots with one cursor share a span."""
        cdef list found = [], slots = None
        cdef long long oldest = self.head - self._count, place = -1, last = -1, cursor
        cdef Py_ssize_t count = self._slot_count, step, slot, begin, end, served = 0
        cdef Py_ssize_t start = self._next if self._next < count else 0
        if limit <= 0:
            return found
        for step in range(count):
            slot = start + step
            if slot >= count:
                slot -= count
            cursor = self._cursors[slot]
            if cursor >= self.head or cursor < oldest or cursor < 0 or self._parked[slot]:
                continue
            if cursor != place:
                place = cursor
                begin = self._offset(cursor + 1)
                end = span_end(self, cursor + 1, max_bytes)
                last = self.head
                if end != self._end:
                    last = cursor + 1
                    while self._offset(last + 1) < end:
                        last += 1
                slots = []
                found.append((PyBytes_FromStringAndSize(self._arena + begin, end - begin), slots))
            self._cursors[slot] = last
            slots.append(slot)
            served += 1
            if served == limit:
                self._next = slot + 1
                break
        return found

    # --- queries -----------------------------------------------------------------------------------

    def pending(self, Py_ssize_t limit):
        """Return up to `limit` slots that are behind, not parked and not lagged, round-robin."""
        cdef list found = []
        cdef long long oldest = self.head - self._count
        cdef Py_ssize_t count = self._slot_count, step, slot, taken = 0
        cdef Py_ssize_t start = self._next if self._next < count else 0
        if limit <= 0:
            return found
        for step in range(count):
            slot = start + step
            if slot >= count:
                slot -= count
            if (
                self._cursors[slot] < self.head
                and self._cursors[slot] >= oldest
                and self._cursors[slot] >= 0
                and not self._parked[slot]
            ):
                found.append(slot)
                taken += 1
                if taken == limit:
                    self._next = slot + 1
                    break
        return found

    def lagged(self):
        """Return the slots whose next frame was dropped."""
        cdef list found = []
        cdef long long oldest = self.head - self._count
        cdef Py_ssize_t slot
        for slot in range(self._slot_count):
            if 0 <= self._cursors[slot] < oldest:
                found.append(slot)
        return found

    def depth(self):
        """Return how many frames the deepest slot is behind, or 0 without slots."""
        cdef long long lowest = self.head
        cdef Py_ssize_t slot
        for slot in range(self._slot_count):
            if 0 <= self._cursors[slot] < lowest:
                lowest = self._cursors[slot]
        return self.head - lowest
