"""The parameters and the results of a chaos run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Plan:
    """The parameters of a run. `change_share`: the share of posts that are followed by a change of some message."""

    replicas: int = 3
    clients: int = 200
    channels: int = 4
    posts: int = 16_000
    change_share: float = 0.3
    posts_per_sec: float = 85.0
    pause_secs: float = 4.0  # before and after each fault
    faults: tuple[str, ...] = ()
    seed: int = 1


@dataclass
class Outcome:
    """The results of a run. `lost`, `repeated`, `out_of_order` count over all acknowledged posts and changes, and all readers.

    `differing_views`: the readers and replicas whose current messages differ from the first replica's.
    `latest_text_secs`: how long after the answer to its redaction a text was still delivered.
    """

    posts: int = 0
    changes: int = 0
    redactions: int = 0
    deliveries: int = 0
    lost: int = 0
    repeated: int = 0
    out_of_order: int = 0
    gaps: int = 0
    differing_views: int = 0
    texts_taken_back: int = 0  # messages delivered without their text
    reconnects: int = 0
    longest_silence_secs: float = 0.0
    longest_post_secs: float = 0.0
    latest_text_secs: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    silence_by_fault: dict[str, float] = field(default_factory=dict)
    latest_text_by_fault: dict[str, float] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, repeated or out of order, and all views agree."""
        return not (self.lost or self.repeated or self.out_of_order or self.gaps or self.differing_views)
