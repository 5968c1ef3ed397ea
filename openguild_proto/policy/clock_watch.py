"""What follows from two clocks: tokens end by the wall clock, and connections by the monotonic one.

Whatever compares an expiry with "now" looks at the wall clock: an access token in a request, a refresh token, an invite.
An open stream waits for a deadline instead, which was right when it was set. When the wall clock is set, the two clocks
have moved apart, and every deadline that was made of an expiry is made again. So a token ends for requests and for
streams alike, whichever way the wall clock goes.
"""

from __future__ import annotations

from openguild_proto.limits import MAX_CLOCK_DRIFT_SECS


def deadline_of(expires_ms: int, now: float, wall: float) -> float:
    """When something that ends at `expires_ms` (UTC milliseconds) does, in monotonic seconds. `wall`: UTC seconds."""
    return now + (expires_ms / 1000 - wall)


class ClockWatch:
    """Tells when deadlines are to be made again: the wall clock has moved MAX_CLOCK_DRIFT_SECS against the other.

    At once when it is set, and now and then when it is slewed.
    """

    def __init__(self, now: float, wall: float) -> None:
        self._offset = wall - now

    def moved(self, now: float, wall: float) -> float:
        """The seconds by which it has moved since this was last said, 0.0 while they are few; negative: it went back."""
        by = wall - now - self._offset
        if abs(by) <= MAX_CLOCK_DRIFT_SECS:
            return 0.0
        self._offset += by
        return by
