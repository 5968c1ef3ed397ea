"""The kinds of bus that the configuration can choose. New kinds are registered here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from anyio.abc import TaskGroup

from openguild_runtime.bus.base import Bus
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.bus.nats import NatsBus
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.observability.metric_labels import NATS_SERIES, BusSeries
from openguild_runtime.observability.metrics import Metrics


@dataclass(frozen=True)
class BusKind:
    """A bus that connects replicas: when the configuration chooses it, and how it is made."""

    series: BusSeries
    is_configured: Callable[[ServerConfig], bool]
    make: Callable[[ServerConfig, Metrics, TaskGroup], Bus]  # connects nothing yet
    min_replicas: Callable[[ServerConfig], int]  # assumed when limits are shared, at first


def _make_nats(config: ServerConfig, metrics: Metrics, tasks: TaskGroup) -> Bus:
    section = config.nats
    assert section.url is not None
    return NatsBus(
        section.url.get_secret_value(),
        config.server_name,
        metrics,
        tasks,
        credentials_file=str(section.credentials_file) if section.credentials_file is not None else None,
        ca_file=str(section.ca_file) if section.ca_file is not None else None,
        certificate=section.certificate,
    )


KINDS: tuple[BusKind, ...] = (
    BusKind(
        series=NATS_SERIES,
        is_configured=lambda config: config.nats.url is not None,
        make=_make_nats,
        min_replicas=lambda config: config.nats.min_replicas,
    ),
)


def configured_bus(config: ServerConfig) -> BusKind | None:
    """Return the first configured kind; None if this process serves alone."""
    return next((kind for kind in KINDS if kind.is_configured(config)), None)


def make_bus(config: ServerConfig, metrics: Metrics, tasks: TaskGroup) -> Bus:
    """Return the configured bus, or a local one. Nothing is connected yet."""
    kind = configured_bus(config)
    return LocalBus() if kind is None else kind.make(config, metrics, tasks)
