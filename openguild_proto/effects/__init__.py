"""The effects that an operation may yield: one frozen Struct each, with its result type in the class header.

Import effects from their modules. This package exports what all of them share.
"""

from __future__ import annotations

from openguild_proto.effects.base import Effect, Operation, Overloaded, StorageEffect, StorageUnavailable

__all__ = ["Effect", "Operation", "Overloaded", "StorageEffect", "StorageUnavailable"]
