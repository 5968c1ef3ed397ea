# cython: language_level=3, embedsignature=True
"""The batched flush: sends ring spans to many subscribers with send(2), directly from the arena, with the GIL released.

The handle of a slot is its socket's file descriptor. The runtime detaches the slot, which removes the handle, before it closes
the socket, so that a closed or reused descriptor is never written to.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc

from openguild_proto.fanout._ring cimport Ring, span_end

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void* buffer, size_t length, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef extern from "<assert.h>" nogil:
    void c_assert "assert" (bint)  # only active in the debug build

cdef struct Trouble:
    Py_ssize_t slot
    Py_ssize_t rest_begin  # the rest of a cut frame, in the arena
    Py_ssize_t rest_size
    int error

cdef enum:
    SENDS_PER_CLOCK_CHECK = 4  # reading the clock costs a hundredth of a send


cdef double monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef bint send_to(Ring ring, Py_ssize_t slot, Py_ssize_t max_bytes, Trouble* trouble) noexcept nogil:
    """Call send(2) once. Returns True if the slot was parked; `trouble` then has what the caller must handle."""
    cdef long long index = ring._cursors[slot] + 1
    cdef Py_ssize_t begin = ring._offset(index), end = span_end(ring, index, max_bytes), length
    cdef bint cut
    c_assert(0 <= slot < ring._slot_count and ring._handles[slot] >= 0 and begin < end <= ring._end)
    cdef ssize_t taken = send(ring._handles[slot], ring._arena + begin, end - begin, MSG_DONTWAIT | MSG_NOSIGNAL)
    trouble.slot = slot
    trouble.rest_begin = trouble.rest_size = 0
    trouble.error = 0
    if taken < 0:
        trouble.error = 0 if errno == EAGAIN or errno == EINTR else errno
        ring._parked[slot] = 1
        return True
    if taken == ring._end - begin:
        ring._cursors[slot] = ring.head  # the common case: all frames
        return False
    cut = taken < end - begin
    while taken > 0:
        length = ring._length(index)
        ring._cursors[slot] = index
        if taken < length:
            trouble.rest_begin = ring._offset(index) + taken
            trouble.rest_size = length - taken
            break
        taken -= length
        index += 1
    if cut:
        ring._parked[slot] = 1  # the socket's buffer is full
    return cut  # False also if the whole span was sent but the backlog is longer


cdef void pass_over(Ring ring, Py_ssize_t slot, Trouble* trouble) noexcept nogil:
    """Park the slot without sending, as if its socket's buffer were full."""
    ring._parked[slot] = 1
    trouble.slot = slot
    trouble.rest_begin = trouble.rest_size = 0
    trouble.error = 0


def flush(Ring ring not None, Py_ssize_t limit, Py_ssize_t max_bytes, double max_secs, bytearray gates=None):
    """Send to up to `limit` slots that are behind, bound, not parked and not lagged, round-robin, for about `max_secs`.

    Serves at least one slot. The time of a send varies, because the kernel may deliver to a reader on the same machine before
    send(2) returns, and may schedule other processes.

    Returns (slots served, slots left, troubles). A slot is left to be served again if the kernel took a whole span of
    `max_bytes` and more is pending. If the time ran out, one more counts as left. `troubles` has (slot, rest, error) for each
    slot that was parked: `rest` is the rest of a cut frame, which must be sent first, and `error` an errno, or 0 if the socket's
    buffer was full.

    `gates` has a byte for each handle, which is not 0 for a socket to which something else must be written first. Such a slot is
    parked like one whose buffer was full.

    Releases the GIL. No other thread may use the ring or the gates meanwhile.
    """
    cdef Py_ssize_t count, step, slot, served = 0, left = 0, troubled = 0, start
    cdef Py_ssize_t gate_count = 0 if gates is None else PyByteArray_GET_SIZE(gates)
    cdef char* shut = NULL if gates is None else PyByteArray_AS_STRING(gates)
    cdef double deadline
    cdef long long oldest = ring.head - ring._count
    cdef Trouble* troubles
    cdef list found = []
    limit = min(limit, ring._slot_count)
    if limit <= 0:
        return 0, 0, found
    troubles = <Trouble*>malloc(limit * sizeof(Trouble))
    if troubles == NULL:
        raise MemoryError
    try:
        with nogil:
            count = ring._slot_count
            start = ring._next if ring._next < count else 0
            deadline = monotonic() + max_secs
            for step in range(count):
                slot = start + step
                if slot >= count:
                    slot -= count
                if (
                    ring._cursors[slot] >= ring.head
                    or ring._cursors[slot] < oldest
                    or ring._cursors[slot] < 0
                    or ring._parked[slot]
                    or ring._handles[slot] < 0
                ):
                    continue
                if ring._handles[slot] < gate_count and shut[ring._handles[slot]]:
                    pass_over(ring, slot, &troubles[troubled])
                    troubled += 1
                elif send_to(ring, slot, max_bytes, &troubles[troubled]):
                    troubled += 1
                elif ring._cursors[slot] < ring.head:
                    left += 1
                served += 1
                if served == limit:
                    ring._next = slot + 1
                    break
                if served % SENDS_PER_CLOCK_CHECK == 0 and monotonic() >= deadline:
                    ring._next = slot + 1
                    left += 1
                    break
        for step in range(troubled):
            found.append((
                troubles[step].slot,
                PyBytes_FromStringAndSize(ring._arena + troubles[step].rest_begin, troubles[step].rest_size)
                if troubles[step].rest_size else b"",
                troubles[step].error,
            ))
    finally:
        free(troubles)
    return served, left, found
