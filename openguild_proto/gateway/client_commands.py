"""The unanswered commands of a client, in order, across connections (PROTOCOL 15.9.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from openguild_proto.errors import LEAVES_OPEN, ErrorCode, LocalProtocolError
from openguild_proto.gateway.frames import AnyCommand, Read, Typing
from openguild_proto.limits import DATABASE_PATIENCE_SECS, MAX_HELD_FRAMES, MAX_PENDING_COMMANDS

KEY_BYTES = 16
LONE_SURROGATE = "a text holds a lone surrogate"


def keyed(command: AnyCommand, random_bytes: Callable[[int], bytes]) -> AnyCommand:
    """Return the command with a key, so that it may be sent again; a random one if it has none and needs one."""
    if isinstance(command, (Read, Typing)) or command.key is not None:
        return command
    return msgspec.structs.replace(command, key=random_bytes(KEY_BYTES).hex())


def sendable(token: str) -> str:
    """Return the token. Raises LocalProtocolError if no message can carry it; the error does not quote it."""
    try:
        token.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("the token holds a lone surrogate") from None
    return token


def is_well_formed(command: AnyCommand) -> bool:
    """Return whether all texts of a command are Unicode; a lone surrogate is not, and no message can carry it."""
    try:
        msgspec.json.encode(command)
    except UnicodeEncodeError:
        return False
    return True


class PendingCommands:
    """`random_bytes(n)`: for keys of commands that have none."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._commands: dict[int, AnyCommand] = {}  # by ref, in order
        self._unsent: deque[int] = deque()  # refs
        self._lost: set[int] = set()  # refs of those that were sent over a connection that has ended
        self._without_database: float | None = None  # since when the server has answered nothing else

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, ref: int, command: AnyCommand) -> bool:
        """Keep a command until it is answered, with a key. Return False for text that cannot be sent.

        Raises LocalProtocolError when too many wait.
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
        """Note that a command was refused. Return whether it may have been done, by this attempt or on an earlier connection.

        None: no such command was waiting.
        """
        may_be_done, since = code in LEAVES_OPEN or ref in self._lost, self._without_database
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
        """Queue all commands again with their keys, because they may not have arrived. Return the refs of those not repeated.

        Typing signals and read positions are not repeated: they may be out of date.
        """
        dropped = [ref for ref, command in self._commands.items() if isinstance(command, (Read, Typing))]
        for ref in dropped:
            self.withdraw(ref)
        self._without_database = None
        self._lost.update(self._commands.keys() - set(self._unsent))
        self._unsent = deque(self._commands)
        return dropped
