"""Selects the compiled ring if it was built, else the pure one.

The core reads no environment variables. To get the pure ring, pass `openguild_proto.fanout.ring.Ring` to the hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openguild_proto.fanout.ring import Ring as PureRing

if TYPE_CHECKING:
    from openguild_proto.fanout._ring import Ring as NativeRing

    Ring: type[PureRing] | type[NativeRing]
    NATIVE: bool
else:
    try:
        from openguild_proto.fanout._ring import Ring
    except ImportError:
        Ring = PureRing
        NATIVE = False
    else:
        NATIVE = True
