"""Requests `/health` at a port every 20 ms until SIGTERM, then prints the latencies in seconds, as JSON."""

from __future__ import annotations

import http.client
import json
import signal
import sys
import time


def main() -> None:
    going = True

    def stop(*_: object) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    connection, waits = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1])), list[float]()
    while going:
        began = time.monotonic()
        connection.request("GET", "/health")
        connection.getresponse().read()
        waits.append(time.monotonic() - began)
        time.sleep(0.02)
    sys.stdout.write(json.dumps(waits))


if __name__ == "__main__":
    main()
