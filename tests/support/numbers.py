"""The numeric settings and their bounds, as the model declares them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from openguild_runtime.config.declared import ConfigKey, keys_of
from openguild_runtime.config.pool_shares import MIN_POOL_SIZE
from openguild_runtime.config.server_config import ServerConfig

LEAST = {"database.pool_size": MIN_POOL_SIZE, "port": 1}  # bounds from checks in code


class Number(NamedTuple):
    """A numeric setting. `least` and `most` are allowed."""

    key: str
    kind: type[int] | type[float]
    least: Any
    most: Any

    @property
    def outside(self) -> tuple[Any, ...]:
        """Return values that are not allowed: the nearest ones and distant ones."""
        if self.kind is int:
            return self.least - 1, self.most + 1, -1 - self.least, 10 * self.most, -(2**63), 2**31 * self.most
        below = math.nextafter(self.least, -1.0)
        return below, math.nextafter(self.most, math.inf), -1, 10 * self.most, 2**63


def _number(key: ConfigKey) -> Number:
    bounds = {
        bound: getattr(rule, bound)
        for rule in key.field.metadata
        for bound in ("gt", "ge", "le")
        if hasattr(rule, bound)
    }
    least = bounds["gt"] + 1 if "gt" in bounds else bounds.get("ge")
    kind: Any = key.field.annotation
    return Number(key.name, kind, LEAST.get(key.name, least), bounds.get("le"))


NUMBERS = [_number(key) for key in keys_of(ServerConfig) if key.field.annotation in (int, float)]
