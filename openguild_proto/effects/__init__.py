"""What an operation may ask of the outside: one frozen Struct per effect, its result type in the class header.

Effects are imported from the modules that define them; here is what all of them share.
"""

from __future__ import annotations

from openguild_proto.effects.base import Effect, Operation, Overloaded, StorageEffect, StorageUnavailable

__all__ = ["Effect", "Operation", "Overloaded", "StorageEffect", "StorageUnavailable"]
