"""The unanswered commands of a client, in order, across connections (PROTOCOL 15.9.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from openguild_proto.errors import OUTCOME_UNKNOWN, ErrorCode, LocalProtocolError
from openguild_proto.gateway.frames import AnyCommand, Read, Typing
from openguild_proto.limits import DATABASE_PATIENCE_SECS, MAX_HELD_FRAMES, MAX_PENDING_COMMANDS

KEY_BYTES = 16
LONE_SURROGATE = "a text contains a lone surrogate"


def keyed(command: AnyCommand, random_bytes: Callable[[int], bytes]) -> AnyCommand:
    """Return the command with a key, so that it can be repeated safely: its own, or a random one if it needs one."""
    if isinstance(command, (Read, Typing)) or command.key is not None:
        return command
    return msgspec.structs.replace(command, key=random_bytes(KEY_BYTES).hex())


def sendable(token: str) -> str:
    """Return the token. Raises LocalProtocolError, without quoting it, if it has a lone surrogate and so cannot be sent."""
    try:
        token.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("the token contains a lone surrogate") from None
    return token


def is_well_formed(command: AnyCommand) -> bool:
    """Return whether all texts of a command are valid Unicode. Lone surrogates are not, and cannot be sent."""
    try:
        msgspec.json.encode(command)
    except UnicodeEncodeError:
        return False
    return True


class PendingCommands:
    """The unanswered commands of a client. `random_bytes(n)`: for the keys of commands without one."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._commands: dict[int, AnyCommand] = {}  # by ref, in order
        self._unsent: deque[int] = deque()  # refs
        self._lost: set[int] = set()  # refs of commands sent on connections that have ended
        self._without_database: float | None = None  # since then all answers were `database_unavailable`

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, ref: int, command: AnyCommand) -> bool:
        """Add a command, with a key, until it is answered. Return False for text that cannot be sent.

        Raises LocalProtocolError if too many commands wait.
        """
        if len(self._commands) >= MAX_PENDING_COMMANDS:
            raise LocalProtocolError(f"{MAX_PENDING_COMMANDS} commands are not answered yet")
        if not is_well_formed(command):
            return False
        self._commands[ref] = msgspec.structs.replace(keyed(command, self._random_bytes), ref=ref)
        self._unsent.append(ref)
        return True

    def to_send(self) -> Iterator[AnyCommand]:
        """Yield the commands to send now, in order, and no more than the server holds."""
        while self._unsent and len(self._commands) - len(self._unsent) < MAX_HELD_FRAMES:
            yield self._commands[self._unsent.popleft()]

    def answered(self, ref: int) -> bool:
        """Note the answer to a command. Return False if no such command was waiting."""
        if ref in self._unsent or self._commands.pop(ref, None) is None:
            return False
        self._lost.discard(ref)
        self._without_database = None
        return True

    def refused(self, ref: int, code: str, now: float) -> bool | None:
        """Note that a command was refused. Return whether it may have been done, by this attempt or an earlier one.

        None: no such command was waiting.
        """
        may_be_done, since = code in OUTCOME_UNKNOWN or ref in self._lost, self._without_database
        if not self.answered(ref):
            return None
        if code == ErrorCode.DATABASE_UNAVAILABLE.spec.code:
            self._without_database = now if since is None else since
        return may_be_done

    def wants_another_server(self, now: float) -> bool:
        """Return whether the server has been without a database for so long that the client should try another one."""
        return self._without_database is not None and now - self._without_database >= DATABASE_PATIENCE_SECS

    def withdraw(self, ref: int) -> bool:
        """Abandon a command: it is not sent again, and its answer is not reported. Return whether it was ever sent."""
        was_sent = ref in self._lost
        if ref in self._unsent:
            self._unsent.remove(ref)
        else:
            was_sent = ref in self._commands
        self._commands.pop(ref, None)
        self._lost.discard(ref)
        return was_sent

    def disconnected(self) -> list[int]:
        """Queue all commands again with their keys, because they may not have arrived.

        Typing signals and read positions are dropped instead, because they may be out of date. Return the refs of the dropped
        ones.
        """
        dropped = [ref for ref, command in self._commands.items() if isinstance(command, (Read, Typing))]
        for ref in dropped:
            self.withdraw(ref)
        self._without_database = None
        self._lost.update(self._commands.keys() - set(self._unsent))
        self._unsent = deque(self._commands)
        return dropped
