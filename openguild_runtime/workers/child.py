"""One worker process. Its whole configuration comes as one line on standard input, which then stays open: a further line
is a configuration that was read again, and when it ends, the supervisor is gone and the worker drains as at SIGTERM."""

from __future__ import annotations

import json
import os
import threading
from io import FileIO
from pathlib import Path
from signal import SIGHUP, SIGTERM

import structlog

from openguild_runtime.cli import answer_failures, serve_here, set_up_logs
from openguild_runtime.config import ServerConfig
from openguild_runtime.workers.siblings import Seat


def main() -> int:
    """The exit status."""
    lifeline = FileIO(0, closefd=False)  # without a buffer, whose lock a waiting thread would hold at the end
    orders = json.loads(lifeline.readline())
    config = ServerConfig.model_validate(orders["config"])
    seat = Seat(orders["number"], orders["count"], Path(orders["directory"]))
    latest = [config]
    threading.Thread(target=_follow_orders, args=(lifeline, latest), daemon=True).start()
    set_up_logs(config)
    structlog.contextvars.bind_contextvars(worker=seat.number)
    return answer_failures(lambda: serve_here(config, lambda: latest[0], seat), None)


def _follow_orders(lifeline: FileIO, latest: list[ServerConfig]) -> None:
    """Keep the newest configuration and have it applied; reading ends when the supervisor is gone."""
    for line in lifeline:
        latest[0] = ServerConfig.model_validate(json.loads(line)["config"])
        os.kill(os.getpid(), SIGHUP)
    os.kill(os.getpid(), SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
