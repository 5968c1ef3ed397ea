"""Standard output whose reader may end first, as in `openguild-server probe URL | head -1`, or that cannot be written."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT = 1


class Output(io.FileIO):
    """File descriptor 1. Once its reader has gone, or it cannot be written, what follows goes nowhere.

    The command ends as it would have. `failure`: why it could not be written; None if only the reader has gone.
    """

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or drop, the bytes."""
        try:
            return super().write(data)
        except OSError as failure:
            if not isinstance(failure, BrokenPipeError):
                self.failure = failure
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def outlive_reader() -> Output | None:
    """Let a command go on without a traceback when the reader of its output ends, or a disk is full.

    None: the output is already replaced, for example by a test that captures it.
    """
    former = sys.stdout
    if not isinstance(former, io.TextIOWrapper) or former is not sys.__stdout__:
        return None
    output = Output(STDOUT, "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=former.encoding,
        errors=former.errors,
        line_buffering=former.line_buffering,
    )
    return output
