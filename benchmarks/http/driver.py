"""The load of the HTTP benchmark, in a process of its own: `python -m benchmarks.http.driver PORT CONNECTIONS COUNT FILE`.

FILE holds requests as a JSON array, taken in turn. Each connection sends the next one as soon as it has its answer. Prints one
JSON line: answers a second, latency quantiles, and the part of the time that this process itself computed.
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
    """Send `count` requests over `connections` connections. Raises RuntimeError for an answer that is not 2xx."""
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
