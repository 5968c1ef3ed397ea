"""One request at a process: its operation is driven to its end, effect by effect; a stream is prepared and joined."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from openguild_proto.effects import Effect, Operation, StorageEffect, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.process import Announce, FindPresence, HashPassword, VerifyPassword, WarnOperator
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import OpenGateway, OpenStream, Request, Response
from openguild_proto.http.refusal import error_response
from openguild_proto.operations.dispatch import dispatch
from tests.simulation.pipes import Pipe

if TYPE_CHECKING:
    from tests.simulation.process import Process

Reply = Callable[["Response | None"], None]
"""Called with the answer, None: the connection broke. Not called for a stream that was opened."""


class Call:
    """A request. `pipe`: the way back of a stream."""

    def __init__(self, process: Process, request: Request, reply: Reply, pipe: Pipe | None) -> None:
        self.request = request
        self.has_ended = False
        self.is_cut = False  # the client has disconnected; the operation continues to its end
        self._process = process
        self._reply = reply
        self._pipe = pipe
        self._changes = process.replica.changes
        self._operation = dispatch(process.context(), request)
        self._asked = 0  # the number of the pending effect
        self._is_late = False
        self._ticket: int | None = None
        self._stream: OpenStream | None = None
        process.clock.later(process.request_secs, self._deadline)

    # --- the operation -------------------------------------------------------------------------------

    def go_on(self, result: Any = None, error: Exception | None = None) -> None:
        """Drive the operation until it waits for the database, or ends."""
        process = self._process
        try:
            while True:
                effect: Effect[Any] = (
                    self._operation.throw(error) if error is not None else self._operation.send(result)
                )
                result = error = None
                if self._is_late:
                    error = StorageUnavailable()
                elif isinstance(effect, StorageEffect):
                    if not process.serving:
                        error = StorageUnavailable()
                        continue
                    self._asked += 1
                    number = self._asked
                    process.storage.submit(effect, partial(self._performed, number, effect))
                    return
                else:
                    result = self._perform(effect)
        except StopIteration as end:
            self._end_operation(end.value)
        except Exception as failure:
            process.violation(f"an operation failed: {failure!r}")
            self.answer(error_response(ErrorCode.SERVER_ERROR, self.request.request_id))

    def _perform(self, effect: Effect[Any]) -> Any:
        match effect:
            case HashPassword(password=password):
                return f"hashed {password}"
            case VerifyPassword(password_hash=password_hash, password=password):
                return password_hash == f"hashed {password}"
            case Announce(hint=hint):
                return self._process.announce(hint)
            case FindPresence(user_ids=user_ids):
                return self._process.replica.presence_of(user_ids)
            case WarnOperator():
                return None
        raise TypeError(type(effect).__name__)

    def _performed(self, number: int, effect: Effect[Any], result: Any, error: Exception | None) -> None:
        if isinstance(effect, AppendEvent) and isinstance(result, Appended) and not result.repeated:
            self._process.committed(result.event)
        if number == self._asked and not self._is_late:
            self.go_on(result, error)

    def _deadline(self) -> None:
        """Abandon the pending effect, whose outcome may be unknown."""
        if self.has_ended or not self._process.alive or self._is_late:
            return
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            self._process.cancel(ticket)
            self._refuse(ErrorCode.DATABASE_UNAVAILABLE)
        elif self._stream is None:
            self._is_late = True
            self.go_on(error=StorageUnavailable())

    def _end_operation(self, result: Response | OpenStream | OpenGateway) -> None:
        if isinstance(result, Response):
            self.answer(result)
            return
        if isinstance(result, OpenGateway):
            self._open_gateway(result)
            return
        self._stream = result
        self._ticket = self._process.prepare(result, self)

    # --- a stream ------------------------------------------------------------------------------------

    def prepared(self, refusal: ErrorCode | None) -> None:
        """Join the stream, or answer with the refusal. Other actions may come first."""
        self._ticket = None
        self._process.clock.later(0.0, self._join, refusal)

    def _join(self, refusal: ErrorCode | None) -> None:
        process, stream = self._process, self._stream
        if not process.alive or stream is None or self._pipe is None:
            return
        if refusal is not None:
            self._refuse(refusal)
        elif process.draining:
            process.abandon(stream)
            self._refuse(ErrorCode.DRAINING)
        else:
            self.has_ended = True
            process.calls.pop(self, None)
            socket = process.join(self._pipe, stream, self._changes)
            if self.is_cut:
                process.clock.later(process.delay(), socket.abort)

    def _open_gateway(self, opened: OpenGateway) -> None:
        process = self._process
        self.has_ended = True
        process.calls.pop(self, None)
        if self._pipe is not None and process.alive and not process.draining:
            process.gateways.open(self._pipe, opened, cut=self.is_cut)
        else:
            process.service.sockets.release(None, opened.address)
            process.clock.later(
                process.delay(), self._reply, error_response(ErrorCode.DRAINING, self.request.request_id)
            )

    def _refuse(self, code: ErrorCode) -> None:
        stream = self._stream
        if stream is not None:
            self._process.service.sockets.release(stream.user_id, stream.address)
        self.answer(error_response(code, self.request.request_id))

    # --- the end -------------------------------------------------------------------------------------

    def answer(self, response: Response | None) -> None:
        """Send the answer; None breaks the connection."""
        if self.has_ended:
            return
        self.has_ended = True
        self._process.calls.pop(self, None)
        if not self.is_cut:
            self._process.clock.later(self._process.delay(), self._reply, response)

    def cut(self) -> None:
        """Break the connection."""
        if not self.is_cut and not self.has_ended:
            self.is_cut = True
            self._process.clock.later(self._process.delay(), self._reply, None)


class OperationRun:
    """Drives an operation without a request. `done(result, error)` is called at its end, unless the process has died."""

    def __init__(
        self, process: Process, operation: Operation[Any], done: Callable[[Any, Exception | None], None]
    ) -> None:
        self._process = process
        self._operation = operation
        self._done = done

    def go_on(self, result: Any = None, error: Exception | None = None) -> None:
        """Drive it until it waits for the database, or ends."""
        process = self._process
        try:
            while True:
                effect = self._operation.throw(error) if error is not None else self._operation.send(result)
                result = error = None
                if process.serving:
                    process.storage.submit(effect, self.go_on)
                    return
                error = StorageUnavailable()
        except StopIteration as end:
            self._done(end.value, None)
        except (Refusal, StorageUnavailable) as failure:
            self._done(None, failure)
