"""Starts serving, for the command line and for a supervisor: configures the logs, then runs the loop."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import anyio

from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.observability import logs
from openguild_runtime.server.siblings import WorkerSlot
from openguild_runtime.system.imports import lean_imports


def set_up_logs(config: ServerConfig) -> None:
    """Configure logging from the configuration and OPENGUILD_LOG. Raises ConfigError for an invalid OPENGUILD_LOG."""
    try:
        logs.configure(config.log_format, os.environ.get("OPENGUILD_LOG") or logs.DEFAULT_FILTER)
    except ValueError as problem:
        raise ConfigError(str(problem)) from None


def serve_here(config: ServerConfig, reread: Callable[[], ServerConfig], slot: WorkerSlot | None = None) -> int:
    """Serve in this process and return the exit status; with `slot`, as one of several workers."""
    with lean_imports():
        from openguild_runtime.server import run  # not loaded by the other commands

    fast = importlib.util.find_spec("uvloop") is not None
    return anyio.run(run.serve, config, slot, reread, backend_options={"use_uvloop": fast})
