"""Types of the compiled ring (ext/ring.pyx): the pure ring's interface."""

from openguild_proto.fanout.ring import Ring as _PureRing

class Ring(_PureRing):
    @property
    def allocated(self) -> int: ...
