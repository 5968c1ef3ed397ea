"""socketify, uWebSockets for Python, whose topics fan out in C++."""

from __future__ import annotations

import json
import sys
import threading
import time

from common import cpu_secs, message
from socketify import App, AppListenOptions, CompressOptions, OpCode

app = App()


def control(port: int) -> None:
    """Perform commands on stdin, on a separate thread. Publishing runs on the loop."""
    print(f"ready {port}", flush=True)
    for line in sys.stdin:
        _, rate, count, burst, size = line.split()
        started, used, due = time.monotonic(), cpu_secs(), time.monotonic()
        for _ in range(int(count)):
            waiting = [message(int(size)).decode() for _ in range(int(burst))]
            app.loop.loop.call_soon_threadsafe(
                lambda waiting=waiting: [app.publish("x", text, OpCode.TEXT) for text in waiting]
            )
            due += 1 / float(rate)
            time.sleep(max(0.0, due - time.monotonic()))
        time.sleep(0.3)
        print(json.dumps({"cpu": cpu_secs() - used, "wall": time.monotonic() - started}), flush=True)


def listening(configuration: AppListenOptions) -> None:
    threading.Thread(target=control, args=(configuration.port,), daemon=True).start()


app.ws(
    "/*",
    {
        "compression": CompressOptions.DISABLED, "max_backpressure": 1 << 24, "idle_timeout": 0,
        "open": lambda ws: ws.subscribe("x"),
    },
)  # fmt: skip
app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"), listening)
app.run()
