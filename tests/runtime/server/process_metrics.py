"""`python -m tests.runtime.server.process_metrics`: the process's metrics by our collector and by the library's, as JSON."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, ProcessCollector

from openguild_runtime.observability import process_metrics


def main() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    ours.register(process_metrics.ProcessCollector())
    ProcessCollector(registry=theirs)
    found = [
        {f"{sample.name} {family.type}": sample.value for family in registry.collect() for sample in family.samples}
        for registry in (ours, theirs)
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
