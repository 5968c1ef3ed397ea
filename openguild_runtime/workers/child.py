"""One worker process. Its whole configuration comes as one line on standard input, which then stays open: when it
ends, the supervisor is gone, and the worker drains as it would at SIGTERM."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from signal import SIGTERM

import structlog

from openguild_runtime.cli import answer_failures, serve_here, set_up_logs
from openguild_runtime.config import ServerConfig
from openguild_runtime.workers.siblings import Seat


def main() -> int:
    """The exit status."""
    orders = json.loads(sys.stdin.buffer.readline())
    config = ServerConfig.model_validate(orders["config"])
    seat = Seat(orders["number"], orders["count"], Path(orders["directory"]))
    threading.Thread(target=_end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    set_up_logs(config)
    structlog.contextvars.bind_contextvars(worker=seat.number)
    return answer_failures(lambda: serve_here(config, seat), None)


def _end_with(lifeline: int) -> None:
    """Nothing more is written to it; a read returns when the supervisor is gone."""
    while os.read(lifeline, 1):
        continue
    os.kill(os.getpid(), SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
