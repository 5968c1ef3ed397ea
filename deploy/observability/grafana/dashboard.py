"""The "OpenGuild Overview" dashboard as data: `python deploy/observability/grafana/dashboard.py` writes dashboards/overview.json.

A test holds the file to this table, and every expression to the metrics that the server really exports.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

TARGET = Path(__file__).with_name("dashboards") / "overview.json"
DATASOURCE = {"type": "prometheus", "uid": "PBFAFD06EF2E8156"}
JOB = 'namespace=~"$namespace", job=~"$job"'  # an environment is a namespace; a server without one is in "All"


class Panel(NamedTuple):
    """`queries`: PromQL and legend. `unit`: Grafana's. `limit`: where the playbook's alert stands."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    limit: float | None = None
    width: int = 8


def rate(metric: str, by: str = "", labels: str = "", span: str = "$__rate_interval") -> str:
    inside = f"{JOB}{', ' + labels if labels else ''}"
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{inside}}}[{span}]))"


def quantile(share: float, metric: str, by: str = "") -> str:
    return f"histogram_quantile({share}, {rate(metric + '_bucket', f'{by}, le' if by else 'le')})"


def gauge(metric: str, how: str = "sum") -> str:
    return f"{how} ({metric}{{{JOB}}})"


HTTP = "openguild_http_request_duration_seconds"
ROWS: dict[str, tuple[Panel, ...]] = {
    "HTTP": (
        Panel("p95 and p99", "s", ((quantile(0.95, HTTP), "p95"), (quantile(0.99, HTTP), "p99")), 0.75),
        Panel("p95 by route", "s", ((quantile(0.95, HTTP, "route"), "{{route}}"),), 0.75),
        Panel("p99 by route", "s", ((quantile(0.99, HTTP, "route"), "{{route}}"),), 0.75),
        Panel("Requests by route", "reqps", ((rate("openguild_http_requests_total", "route"), "{{route}}"),)),
        Panel(
            "Server errors",
            "reqps",
            ((rate("openguild_http_requests_total", "status", 'status=~"5.."'), "{{status}}"),),
        ),
        Panel(
            "Refused by status",
            "reqps",
            ((rate("openguild_http_requests_total", "status", 'status=~"4.."'), "{{status}}"),),
        ),
        Panel("Rejections by reason", "ops", ((rate("openguild_messaging_rejections_total", "reason"), "{{reason}}"),)),
    ),
    "Messages and streams": (
        Panel("Events by outcome", "ops", ((rate("openguild_messaging_events_total", "outcome"), "{{outcome}}"),)),
        Panel(
            "Queue depth by channel",
            "short",
            ((f"max by (channel_id) (openguild_websocket_queue_depth{{{JOB}}})", "{{channel_id}}"),),
            196,
        ),
        Panel(
            "Deepest queue",
            "short",
            (
                (gauge("openguild_websocket_queue_depth_max", "max by (instance)"), "{{instance}}"),
                (gauge("openguild_notification_queue_depth_max", "max by (instance)"), "{{instance}} notifications"),
            ),
            196,
        ),
        Panel(
            "Streams open",
            "short",
            (
                (gauge("openguild_websocket_connections", "sum by (instance)"), "{{instance}}"),
                (gauge("openguild_subscribers"), "subscribers of rings"),
            ),
        ),
        Panel(
            "Connections accepted", "cps", ((rate("openguild_connections_accepted_total", "instance"), "{{instance}}"),)
        ),
        Panel(
            "Append to flush",
            "s",
            (
                (quantile(0.5, "openguild_delivery_seconds"), "p50"),
                (quantile(0.99, "openguild_delivery_seconds"), "p99"),
            ),
        ),
        Panel(
            "Closed for lag, replayed",
            "ops",
            (
                (rate("openguild_websocket_lag_closes_total"), "streams closed"),
                (rate("openguild_replay_events_total"), "events replayed"),
            ),
        ),
    ),
    "PostgreSQL": (
        Panel(
            "Append latency",
            "s",
            (
                (quantile(0.5, "openguild_append_duration_seconds"), "p50"),
                (quantile(0.99, "openguild_append_duration_seconds"), "p99"),
            ),
        ),
        Panel(
            "Events in a commit",
            "short",
            ((f"{rate('openguild_append_batch_size_sum')} / {rate('openguild_append_batch_size_count')}", "mean"),),
        ),
        Panel(
            "Appends waiting",
            "short",
            ((gauge("openguild_commit_queue_depth", "max by (instance)"), "{{instance}}"),),
            2048,
        ),
        Panel("Database reachable", "bool", ((gauge("openguild_db_ready", "min by (instance)"), "{{instance}}"),)),
        Panel(
            "Connections of the pool",
            "short",
            ((gauge("openguild_db_pool_connections", "sum by (state)"), "{{state}}"),),
        ),
    ),
    "NATS": (
        Panel("Connected", "bool", ((gauge("openguild_nats_connected", "min by (instance)"), "{{instance}}"),)),
        Panel(
            "Reconnects and drops",
            "ops",
            (
                (rate("openguild_nats_reconnects_total"), "reconnects"),
                (rate("openguild_nats_publishes_dropped_total"), "publishes dropped"),
            ),
        ),
        Panel("Faults", "ops", ((rate("openguild_nats_faults_total", "kind"), "{{kind}}"),)),
        Panel(
            "Denied subjects, division of limits",
            "short",
            (
                (gauge("openguild_nats_denied_subjects", "max by (instance)"), "{{instance}} denied"),
                (gauge("openguild_limit_divisor", "max by (instance)"), "{{instance}} divisor"),
            ),
        ),
        Panel(
            "Holes",
            "ops",
            (
                (rate("openguild_gaps_found_total"), "found"),
                (rate("openguild_gap_events_backfilled_total"), "events read for them"),
            ),
        ),
    ),
    "Saturation": (
        Panel("CPU", "percentunit", ((rate("process_cpu_seconds_total", "instance"), "{{instance}}"),)),
        Panel("Memory", "bytes", ((gauge("process_resident_memory_bytes", "sum by (instance)"), "{{instance}}"),)),
        Panel(
            "Loop stall p99", "s", ((quantile(0.99, "openguild_loop_stall_seconds", "instance"), "{{instance}}"),), 0.1
        ),
        Panel(
            "Descriptors",
            "percentunit",
            ((f"max by (instance) (process_open_fds{{{JOB}}} / process_max_fds{{{JOB}}})", "{{instance}}"),),
            0.9,
        ),
        Panel(
            "Workers answering",
            "short",
            ((gauge("openguild_worker_up", "sum by (instance)"), "{{instance}}"),),
        ),
        Panel(
            "Messages that wait for the search index",
            "short",
            ((gauge("openguild_search_unindexed_messages", "max"), "messages"),),
            2000,
        ),
        Panel(
            "Clock against the database's",
            "s",
            ((gauge("openguild_clock_difference_seconds", "max by (instance)"), "{{instance}}"),),
            2,
        ),
        Panel("Draining", "bool", ((gauge("openguild_draining", "max by (instance)"), "{{instance}}"),)),
        Panel("Versions", "short", ((f"count by (version) (openguild_build_info{{{JOB}}})", "{{version}}"),)),
    ),
}


def panels() -> list[tuple[str, Panel]]:
    """With their rows."""
    return [(row, panel) for row, found in ROWS.items() for panel in found]


def build() -> dict[str, Any]:
    drawn: list[dict[str, Any]] = []
    x, y = 0, 0
    for row, found in ROWS.items():
        drawn.append(
            {"id": len(drawn) + 1, "type": "row", "title": row, "collapsed": False, "panels": [],
             "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}}
        )  # fmt: skip
        x, y = 0, y + 1
        for panel in found:
            if x + panel.width > 24:
                x, y = 0, y + 8
            drawn.append(_panel(len(drawn) + 1, panel, x, y))
            x += panel.width
        y += 8
    return {
        "uid": "openguild-overview",
        "title": "OpenGuild Overview",
        "tags": ["openguild"],
        "schemaVersion": 41,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "editable": True,
        "templating": {
            "list": [
                _variable("namespace", "Environment", "label_values(openguild_build_info, namespace)"),
                _variable("job", "Job", 'label_values(openguild_build_info{namespace=~"$namespace"}, job)'),
            ]
        },
        "annotations": {"list": []},
        "panels": drawn,
    }


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    """ "All" matches series that do not have the label too."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "query": {"query": query, "refId": name},
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    custom = {"thresholdsStyle": {"mode": "line" if panel.limit is not None else "off"}, "fillOpacity": 8}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": {"h": 8, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": custom,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE}
            for place, (expr, legend) in enumerate(panel.queries)
        ],
    }


def text() -> str:
    return json.dumps(build(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
    sys.stdout.write(f"wrote {TARGET}\n")
