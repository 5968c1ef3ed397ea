"""Current problems with NATS, for `/ready`, for the metrics, and for the log with one line a minute per cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import structlog

from openguild_proto.policy.active_faults import ActiveFaults
from openguild_proto.policy.log_throttle import LogThrottle
from openguild_runtime.bus.nats_faults import Fault, denied_fault
from openguild_runtime.observability.metrics import Metrics

log = structlog.get_logger("openguild.nats")


class NatsProblems:
    """`prefix`: of this server's subjects. `active` holds errors that the server reported without ending the connection."""

    def __init__(self, prefix: str, metrics: Metrics) -> None:
        self.active: ActiveFaults[Fault] = ActiveFaults()
        self._prefix = prefix
        self._metrics = metrics
        self._log_throttle = LogThrottle()

    def report(self, fault: Fault, server: str, before: str = "", **fields: int) -> None:
        """Count the fault, and log it unless it was logged within the last minute."""
        self._metrics.nats_fault(fault.kind)
        repeated = self._log_throttle.due(fault.cause, anyio.current_time())
        if repeated is not None:
            line = f"{before}NATS {fault.cause}: {fault.mend}"
            log.warning(line, server=server, kind=fault.kind, repeated=repeated, **fields)

    def record(self, fault: Fault, server: str, **fields: int) -> None:
        """Report the fault and keep it in `active` until a probe passes without it."""
        self.active.report(fault.kind, fault)
        self.report(fault, server, "", **fields)

    def record_denied(self, action: str, subject: str, server: str) -> None:
        """Record a denied subject, given in lower case. All channels count as one kind, and the log names none of them."""
        kind, _, channel_id = subject.removeprefix(f"{self._prefix.lower()}.").partition(".")
        pattern = f"{self._prefix}.{kind}{'.*' if channel_id else ''}"
        fault = denied_fault(action, pattern, f"{self._prefix}.>")
        self.active.report(f"{action} {kind}", fault)
        self._count()
        self.report(fault, server)

    def end_round(self) -> list[str]:
        """End a probe's round and return the keys of the problems that it cleared."""
        found = self.active.end_round()
        self._count()
        return found

    def clear(self) -> None:
        """Forget all problems: the connection has ended."""
        self.active.clear()
        self._count()

    def _count(self) -> None:
        self._metrics.nats_denied(sum(fault.kind == "denied" for fault in self.active.values()))

    @contextmanager
    def handling_message(self, subject: str) -> Iterator[None]:
        """Log an exception raised for one message, so that the subscription goes on with the next."""
        try:
            yield
        except ValueError as failure:
            repeated = self._log_throttle.due("message", anyio.current_time())
            if repeated is not None:
                kind = type(failure).__name__
                log.warning("an invalid NATS message was dropped", subject=subject, kind=kind, repeated=repeated)
        except Exception:
            log.exception("a NATS message could not be handled", subject=subject)
