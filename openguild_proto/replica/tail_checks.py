"""TailCheck checks: find events and records that the bus has lost, periodically, and at once after the bus was down."""

from __future__ import annotations

from collections.abc import Callable

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.limits import CATCH_UP_SECS, TAIL_CHECK_SECS
from openguild_proto.procedures import Procedure, Sleep
from openguild_proto.replica.channels import Channels
from openguild_proto.replica.controls import Controls
from openguild_proto.replica.epochs import Epochs
from openguild_proto.replica.outputs import Outputs


class TailChecks:
    """Runs the tail checks. `jitter()` returns numbers in [0, 1), so that replicas check at different times."""

    def __init__(
        self, outputs: Outputs, epochs: Epochs, channels: Channels, controls: Controls, jitter: Callable[[], float]
    ) -> None:
        self._outputs = outputs
        self._epochs = epochs
        self._channels = channels
        self._controls = controls
        self._jitter = jitter
        self.is_bus_up = True
        self._catch_up_asked = False
        self._is_catching_up = False

    def follow(self) -> None:
        """Start the periodic checks."""
        self._outputs.procedures.start(self._check_tails_forever(), "the tail checks")

    def bus_state(self, connected: bool) -> None:
        """Set whether the bus is connected. After a reconnect every tail is checked."""
        was, self.is_bus_up = self.is_bus_up, connected
        if connected and not was:
            self.catch_up()

    def catch_up(self) -> None:
        """Check every tail now, or `CATCH_UP_SECS` after the last such check. Checks never overlap."""
        self._catch_up_asked = True
        if not self._is_catching_up:
            self._is_catching_up = True
            self._outputs.procedures.start(self._catch_up(), "checking every tail")

    def _check_tails_forever(self) -> Procedure[None]:
        """Check twice in each `TAIL_CHECK_SECS`, with jitter."""
        while True:
            yield from Sleep(TAIL_CHECK_SECS / 2 * (0.75 + 0.5 * self._jitter())).wait()
            yield from self._check_all(everything=False)

    def _check_all(self, *, everything: bool) -> Procedure[None]:
        """Check all logs, the control log first: a banned user must not get events from after the ban (PROTOCOL 10.5.4)."""
        yield from self._contained(self._epochs.check(), "checking the epochs")
        yield from self._contained(self._controls.check_tail(), "checking the control log's tail")
        tail_checks = self._channels.check_tails(deaf=not self.is_bus_up, everything=everything)
        yield from self._contained(tail_checks, "checking the channels' tails")

    def _contained(self, procedure: Procedure[None], what: str) -> Procedure[None]:
        """Run a check. If the store is unavailable, the next check repeats it; a defect is reported. The others go on."""
        try:
            yield from procedure
        except StorageUnavailable:
            return
        except Exception as failure:
            self._outputs.defect(what, failure)

    def _catch_up(self) -> Procedure[None]:
        try:
            while self._catch_up_asked:
                self._catch_up_asked = False
                yield from self._check_all(everything=True)
                yield from Sleep(CATCH_UP_SECS).wait()
        finally:
            self._is_catching_up = False
