"""Standard output that survives write errors and a reader that ends first, as in `openguild-server probe URL | head -1`."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT = 1


class Output(io.FileIO):
    """File descriptor 1. After a failed write, all further output is discarded, and the command runs to its normal end.

    `failure` is the error of the write, or None if only the reader is gone.
    """

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write the bytes, or discard them after a failure."""
        try:
            return super().write(data)
        except OSError as failure:
            if not isinstance(failure, BrokenPipeError):
                self.failure = failure
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def survive_closed_stdout() -> Output | None:
    """Replace `sys.stdout`, so that a command goes on without a traceback when its reader ends or a disk is full.

    Returns None, and changes nothing, if it has been replaced already, for example by a test that captures it.
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
