"""The numbers of the configuration and their bounds, as the model declares them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from openguild_runtime.config.pool_shares import MIN_POOL_SIZE
from openguild_runtime.config.sections import ServerConfig

LEAST = {"database.pool_size": MIN_POOL_SIZE, "port": 1}  # what a check of their own says


class Number(NamedTuple):
    """A key whose value is a number; `least` and `most` are allowed."""

    key: str
    kind: type[int] | type[float]
    least: Any
    most: Any

    @property
    def outside(self) -> tuple[Any, ...]:
        """The nearest ones that are not allowed, and far ones."""
        if self.kind is int:
            return self.least - 1, self.most + 1, -1 - self.least, 10 * self.most, -(2**63), 2**31 * self.most
        below = math.nextafter(self.least, -1.0)
        return below, math.nextafter(self.most, math.inf), -1, 10 * self.most, 2**63


def _numbers(model: type[BaseModel], prefix: str = "") -> Iterator[Number]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _numbers(kind, f"{prefix}{name}.")
        elif kind is int or kind is float:
            bounds = {
                bound: getattr(rule, bound)
                for rule in field.metadata
                for bound in ("gt", "ge", "le")
                if hasattr(rule, bound)
            }
            least = bounds["gt"] + 1 if "gt" in bounds else bounds.get("ge")
            yield Number(prefix + name, kind, LEAST.get(prefix + name, least), bounds.get("le"))


NUMBERS = list(_numbers(ServerConfig))
