"""What a start does not import."""

from __future__ import annotations

import subprocess
import sys

LEAN = """
import sys
from openguild_runtime.system.imports import lean_imports
with lean_imports():
    import openguild_runtime.server.run
print([name for name in ("aiohttp", "rich") if name in sys.modules])
import aiohttp, rich
"""


def test_the_server_starts_without_what_it_does_not_use_and_others_may_import_it() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
