"""One worker process. Its whole configuration comes as one line on standard input, which then stays open: a further line
is a configuration that was read again, and when it ends, the supervisor is gone and the worker drains as at SIGTERM.

With the first line come the settings that `admin set` gave to the worker that had the slot before, and the descriptor of
its line to the supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from io import FileIO
from typing import NoReturn

import structlog

from openguild_runtime.admin.reload import with_value
from openguild_runtime.config.sections import ServerConfig
from openguild_runtime.process.signals import exit_on_sigterm, ignore_sighup
from openguild_runtime.process.standard_streams import redirect_stderr_to_log
from openguild_runtime.process.watchdog import exit_process
from openguild_runtime.server.failures import answer_failures
from openguild_runtime.server.serving import serve_here, set_up_logs
from openguild_runtime.server.siblings import SiblingLink, WorkerSlot

log = structlog.get_logger("openguild.workers")


def main() -> NoReturn:
    """Serve until the end of the process."""
    exit_on_sigterm(0)
    ignore_sighup()
    lifeline = FileIO(0, closefd=False)  # without a buffer, whose lock a waiting thread would hold at the end
    start_parameters = json.loads(lifeline.readline())
    config = ServerConfig.model_validate(start_parameters["config"])
    line = socket.socket(fileno=start_parameters["line"])
    line.set_inheritable(False)
    slot = WorkerSlot(
        start_parameters["number"], start_parameters["count"], start_parameters["supervisor"], SiblingLink(line)
    )
    latest = [config]
    for key, value in start_parameters["changes"].items():
        config = with_value(config, key, value)
    threading.Thread(target=_follow_supervisor, args=(lifeline, latest), daemon=True).start()
    set_up_logs(config)
    redirect_stderr_to_log()
    structlog.contextvars.bind_contextvars(worker=slot.number)
    with line:
        status = answer_failures(lambda: serve_here(config, lambda: latest[0], slot), None, lambda: config.log_format)
    exit_process(status)


def _follow_supervisor(lifeline: FileIO, latest: list[ServerConfig]) -> None:
    """Keep the newest configuration and have it applied; reading ends when the supervisor is gone.

    A line that is no order, such as the half of one that the supervisor's end cut, changes nothing.
    """
    for line in lifeline:
        try:
            config = ServerConfig.model_validate(json.loads(line)["config"])
        except (ValueError, KeyError, TypeError) as fault:  # the line holds secrets, and so may the fault's own text
            log.warning("a line from the supervisor is no order", nbytes=len(line), fault=type(fault).__name__)
            continue
        latest[0] = config
        os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
