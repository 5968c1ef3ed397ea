"""Selects the compiled ring if it is built, else the pure-Python ring.

The core reads no environment variables. To use the pure ring, pass `openguild_proto.fanout.ring.Ring` to the hub.
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
