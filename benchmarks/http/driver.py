"""The load generator of the HTTP benchmark: `python -m benchmarks.http.driver PORT CONNECTIONS COUNT FILE`.

FILE has requests as a JSON array, which are sent in turn. Each connection sends the next one when it has its answer. Prints one
JSON line: answers per second, latency quantiles, and the share of time in which this process used the CPU.
"""

from __future__ import annotations

import itertools
import json
import select
import sys
import time
from pathlib import Path

from benchmarks.http.wire import Connection


def drive(port: int, connections: int, count: int, requests: list[bytes]) -> dict[str, float]:
    """Send `count` requests over `connections` connections, and return the figures. Raises RuntimeError for a non-2xx answer."""
    following = itertools.cycle(requests)
    poller = select.epoll()
    by_descriptor: dict[int, Connection] = {}
    for _ in range(min(connections, count)):
        connection = Connection(port)
        by_descriptor[connection.sock.fileno()] = connection
        poller.register(connection.sock, select.EPOLLIN)
    started, cpu, sent = time.monotonic(), time.process_time(), 0
    for connection in by_descriptor.values():
        connection.send(next(following))
        sent += 1
    latencies: list[float] = []
    while len(latencies) < count:
        for descriptor, _ in poller.poll():
            connection = by_descriptor[descriptor]
            if connection.take() is None:
                continue
            latencies.append(time.monotonic() - connection.sent_at)
            if sent < count:
                connection.send(next(following))
                sent += 1
    spent = time.monotonic() - started
    busy = (time.process_time() - cpu) / spent
    for connection in by_descriptor.values():
        connection.sock.close()
    latencies.sort()
    return {
        "per_sec": count / spent, "p50": latencies[count // 2], "p99": latencies[int(count * 0.99)], "driver_busy": busy,
    }  # fmt: skip


def main() -> None:
    port, connections, count, path = sys.argv[1:]
    requests = [text.encode("latin-1") for text in json.loads(Path(path).read_text())]
    print(json.dumps(drive(int(port), int(connections), int(count), requests)), flush=True)


if __name__ == "__main__":
    main()
