# The native ring's layout and its span rule, for `cimport` by the batched flush.

cdef class Ring:
    cdef char* _arena              # frames, back to back, oldest first from _start
    cdef Py_ssize_t _arena_size    # bytes allocated
    cdef Py_ssize_t _start         # offset of the oldest frame
    cdef Py_ssize_t _end           # offset behind the newest frame
    cdef Py_ssize_t* _offsets      # circular: offset of frame i at i % _index_size, and the end behind the newest
    cdef Py_ssize_t _index_size
    cdef Py_ssize_t _count         # frames held
    cdef readonly long long head
    cdef long long* _cursors       # -1: the slot is free
    cdef char* _parked
    cdef int* _handles             # -1: nothing is bound
    cdef Py_ssize_t _slot_size     # slots allocated
    cdef Py_ssize_t _slot_count    # slots ever used
    cdef Py_ssize_t _attached
    cdef Py_ssize_t _next
    cdef list _free
    cdef Py_ssize_t _capacity_events
    cdef Py_ssize_t _capacity_bytes

    cdef int _check(self, Py_ssize_t slot) except -1
    cdef int _make_room(self, Py_ssize_t size) except -1
    cdef Py_ssize_t _offset(self, long long index) noexcept nogil
    cdef Py_ssize_t _length(self, long long index) noexcept nogil


cdef inline Py_ssize_t span_end(Ring ring, long long first, Py_ssize_t max_bytes) noexcept nogil:
    """Return the end of the span that begins with frame `first`: at least one frame, more while within `max_bytes`."""
    cdef Py_ssize_t begin = ring._offset(first), end
    cdef long long index
    if ring._end - begin <= max_bytes:
        return ring._end
    end = begin + ring._length(first)
    index = first + 1
    while index <= ring.head and end + ring._length(index) - begin <= max_bytes:
        end += ring._length(index)
        index += 1
    return end
