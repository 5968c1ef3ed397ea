"""Opens descriptors 0, 1 and 2 if the parent process has closed them.

Imports little: a library may open a file while it is imported, as libffi does, and keep it.
"""

from __future__ import annotations

import os
import sys


def open_missing_descriptors() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed: what is opened next would get its number."""
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
