"""The program of a worker process.

The supervisor sends the configuration as one line on standard input, and keeps the pipe open. Each further line is a reloaded
configuration. When the pipe ends, the supervisor is gone, and the worker drains as after SIGTERM.

The first line also has the settings that `admin set` changed in the previous process of this slot, and the descriptor of the
socket to the supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from io import FileIO
from typing import NoReturn

from openguild_runtime.process.signals import exit_on_sigterm, hold_sighup, ignore_user_signals
from openguild_runtime.system.imports import lean_imports

hold_sighup()  # during the imports
ignore_user_signals()

with lean_imports():
    import structlog

    from openguild_runtime.admin.reload import with_value
    from openguild_runtime.config.server_config import ServerConfig
    from openguild_runtime.observability.log_context import process_fields
    from openguild_runtime.process.standard_streams import redirect_stderr_to_log
    from openguild_runtime.process.watchdog import exit_process
    from openguild_runtime.server.failures import answer_failures
    from openguild_runtime.server.serving import serve_here, set_up_logs
    from openguild_runtime.server.siblings import SiblingLink, WorkerSlot

log = structlog.get_logger("openguild.workers")


def main() -> NoReturn:
    """Serve, then exit the process."""
    exit_on_sigterm(0)
    lifeline = FileIO(0, closefd=False)  # unbuffered: at exit a reading thread would hold a buffer's lock
    start_parameters = json.loads(lifeline.readline())
    config = ServerConfig.model_validate(start_parameters["config"])
    with socket.socket(fileno=start_parameters["link"]) as link:  # closed also if a SIGTERM ends the start
        link.set_inheritable(False)
        slot = WorkerSlot(
            start_parameters["number"], start_parameters["count"], start_parameters["supervisor"], SiblingLink(link)
        )
        latest = [config]
        for key, value in start_parameters["changes"].items():
            config = with_value(config, key, value)
        threading.Thread(target=_follow_supervisor, args=(lifeline, latest), daemon=True).start()
        set_up_logs(config)
        redirect_stderr_to_log()
        process_fields["worker"] = slot.number
        status = answer_failures(lambda: serve_here(config, lambda: latest[0], slot), None, lambda: config.log_format)
    exit_process(status)


def _follow_supervisor(lifeline: FileIO, latest: list[ServerConfig]) -> None:
    """Apply each configuration that the supervisor sends, until it is gone.

    An invalid line changes nothing; the supervisor may have died while it wrote the line.
    """
    for line in lifeline:
        try:
            config = ServerConfig.model_validate(json.loads(line)["config"])
        except (ValueError, KeyError, TypeError) as fault:  # its text may quote secrets from the line
            log.warning("an invalid line from the supervisor", nbytes=len(line), fault=type(fault).__name__)
            continue
        latest[0] = config
        os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
