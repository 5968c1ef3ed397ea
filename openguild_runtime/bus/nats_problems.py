"""Current problems with NATS, for the metrics and for the log, which gets one line a minute for each cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import structlog

from openguild_proto.bus.faults import Fault, Problems
from openguild_proto.bus.nats import SILENT, WAITING, Subjects
from openguild_proto.bus.other_databases import OtherDatabases
from openguild_runtime.observability.metrics import Metrics

log = structlog.get_logger("openguild.nats")


class NatsProblems(Problems):
    """Counts and logs the problems that the core's `Problems` keeps."""

    def __init__(self, subjects: Subjects, metrics: Metrics) -> None:
        super().__init__("NATS", WAITING, SILENT)
        self._subjects = subjects
        self._metrics = metrics
        self._others = OtherDatabases()

    def report(self, fault: Fault, server: str, before: str = "", **fields: int) -> None:
        """Count the fault, and log it unless it was logged within the last minute."""
        self._metrics.bus_fault(fault.kind)
        line = self.line(fault, anyio.current_time(), before)
        if line is not None:
            log.warning(line[0], server=server, kind=fault.kind, repeated=line[1], **fields)

    def record(self, fault: Fault, server: str, key: str | None = None, **fields: int) -> None:
        """Report the fault and keep it in `active` until a probe passes without it."""
        self.active.report(key or fault.kind, fault)
        self.count()
        self.report(fault, server, "", **fields)

    def record_denied(self, action: str, subject: str, server: str) -> None:
        """Record a denied subject, given in lower case."""
        key, fault = self._subjects.denied(action, subject)
        self.record(fault, server, key)

    def clear(self) -> None:
        """Forget all problems, because the connection has ended."""
        self.active.clear()
        self.count()

    def count(self) -> None:
        """Update the metrics of denied subjects and of other databases."""
        self._metrics.denied_subjects(self.denied)
        self._metrics.other_databases(self._others.count(anyio.current_time()))

    def record_other(self, database: str) -> None:
        """Note a message of another database, which is dropped."""
        if self._others.record(database, anyio.current_time()):
            self.count()
            log.warning(
                "replicas of another database use this server_name on this NATS, and their messages are ignored: give each "
                "deployment a server_name or a NATS account of its own, and all replicas of one the same database",
                database=self._subjects.database,
                other=database,
            )

    @contextmanager
    def handling_message(self, subject: str) -> Iterator[None]:
        """Log an exception raised for one message, so that the subscription goes on with the next."""
        try:
            yield
        except ValueError as failure:
            repeated = self.invalid_message(anyio.current_time())
            if repeated is not None:
                kind = type(failure).__name__
                log.warning("an invalid NATS message was dropped", subject=subject, kind=kind, repeated=repeated)
        except Exception:
            log.exception("a NATS message could not be handled", subject=subject)
