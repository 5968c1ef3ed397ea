"""The entry point of `openguild-server`. Prints one line if only the core is installed: cli/main.py then cannot be imported."""

from __future__ import annotations

import sys

from openguild_runtime.process.missing_descriptors import open_missing_descriptors
from openguild_runtime.process.output import outlive_reader
from openguild_runtime.process.signals import SIGTERM_STATUS, exit_on_sigterm
from openguild_runtime.system.imports import without_collector


def main() -> int:
    """Run one command and return the exit status."""
    exit_on_sigterm(SIGTERM_STATUS)
    open_missing_descriptors()
    outlive_reader()
    try:
        with without_collector():
            from openguild_runtime.cli.main import main as run
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("openguild"):
            raise  # a bug
        sys.stderr.write(
            f"openguild-server: {missing.name} is not installed: pip install 'openguild[server]' "
            "('openguild[embedded]' for --embedded)\n"
        )
        return 1
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
