"""The entry point of `openguild-server`. If only the core is installed, cli/main.py cannot be imported; it prints one line then."""

from __future__ import annotations

import sys

from openguild_runtime.process.missing_descriptors import open_missing_descriptors
from openguild_runtime.process.output import survive_closed_stdout
from openguild_runtime.process.signals import SIGINT_STATUS, SIGTERM_STATUS, exit_on_sigterm, hold_sighup
from openguild_runtime.system.imports import lean_imports


def main() -> int | str | None:
    """Run one command and return its exit status, or 1 if its output could not be written."""
    exit_on_sigterm(SIGTERM_STATUS)
    hold_sighup()  # during the imports: service managers may reload a process right after its start
    open_missing_descriptors()
    output = survive_closed_stdout()
    status: int | str | None
    try:
        status = _run()
    except KeyboardInterrupt:  # during the imports, which can take a second
        status = SIGINT_STATUS
    except SystemExit as ended:  # by --help or SIGTERM
        status = ended.code
    sys.stdout.flush()
    if output is not None and output.failure is not None:
        sys.stderr.write(f"openguild-server: standard output: {output.failure.strerror}\n")
        return 1
    return status


def _run() -> int:
    try:
        with lean_imports():
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
