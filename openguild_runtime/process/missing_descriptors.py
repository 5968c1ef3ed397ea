"""Opens descriptors 0, 1 and 2 if the parent process has closed them.

It imports little, because libraries such as libffi open files when they are imported, and keep them open.
"""

from __future__ import annotations

import os
import sys


def open_missing_descriptors() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed, because the next opened file would get its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) != number:
                raise
            os.set_inheritable(number, True)
            stream = open(number, mode, closefd=False)  # noqa: SIM115 - stays open until the process exits
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
