"""Standard output whose reader may end first, as in `openguild-server probe URL | head -1`."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT = 1


class _Output(io.FileIO):
    """File descriptor 1. Once its reader has gone, what is written goes nowhere, and the command ends as it would have."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or drop, the bytes."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def outlive_reader() -> None:
    """Let a command go on without a traceback, and with its own exit status, when the reader of its output ends."""
    former = sys.stdout
    if not isinstance(former, io.TextIOWrapper) or former is not sys.__stdout__:
        return  # already replaced, for example by a test that captures it
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(STDOUT, "w", closefd=False)),
        encoding=former.encoding,
        errors=former.errors,
        line_buffering=former.line_buffering,
    )
