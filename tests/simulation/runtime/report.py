"""The outcome of one run of whole servers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """The violations of a run, if any. `digest` is equal for equal runs."""

    seed: int
    violations: list[str] = field(default_factory=list)
    posts: int = 0
    deliveries: int = 0
    reconnects: int = 0
    crashes: int = 0
    digest: str = ""
