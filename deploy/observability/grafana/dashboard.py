"""The "OpenGuild Overview" dashboard: `python deploy/observability/grafana/dashboard.py` writes dashboards/overview.json.

panels.yaml says what is shown. Grafana's own SDK, whose types are generated from Grafana's schema, writes the JSON. It needs
the extra `dev`. A test holds the file to panels.yaml, and every expression to the metrics that the server exports.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

HERE = Path(__file__).parent
TARGET = HERE / "dashboards/overview.json"
RUNBOOKS = "https://docs.openguild.com"  # as OPENGUILD_RUNBOOKS in Compose; a variable of the dashboard changes it
SELECTED = 'namespace=~"$environment", instance=~"$instance"'
WIDTH, HEIGHT = 8, 8
DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="PBFAFD06EF2E8156")
# The start of each process, at the moment that the sample names.
DEPLOYS = (
    "(process_start_time_seconds{{$}} * on (namespace, job, instance) group_left (version) openguild_build_info) * 1000"
)

PanelBuilder = timeseries.Panel | stat.Panel | table.Panel


class Panel(NamedTuple):
    """A panel of panels.yaml; the fields are described there."""

    title: str
    description: str
    runbook: str
    queries: list[list[str]]
    unit: str = "short"
    limit: float | None = None
    at_least: float | None = None
    width: int = WIDTH
    kind: str = "timeseries"


def rows() -> dict[str, list[Panel]]:
    """The panels by row."""
    text = (HERE / "panels.yaml").read_text().replace("{{$}}", f"{{{SELECTED}}}").replace("{$}", SELECTED)
    return {row: [Panel(**panel) for panel in panels] for row, panels in yaml.safe_load(text).items()}


def panels() -> list[tuple[str, Panel]]:
    """With their rows."""
    return [(row, panel) for row, found in rows().items() for panel in found]


class Deploys(model.AnnotationQuery):
    """Starts of servers. The schema leaves out what belongs to the data source."""

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {
            "titleFormat": "{{version}} at {{instance}}",
            "useValueForTime": True,
            "step": "60s",
        }


class DeploysQuery(dashboard.AnnotationQuery):
    """Its builder."""

    def __init__(self) -> None:
        self._internal = Deploys()


def build() -> dashboard.Dashboard:
    """Build the dashboard."""
    deploys = DeploysQuery().name("Deploys").datasource(DATASOURCE).enable(True).icon_color("blue")
    built = (
        dashboard.Dashboard("OpenGuild Overview")
        .uid("openguild-overview")
        .tags(["openguild"])
        .version(2)
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("utc")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(_variable("environment", "Environment", "label_values(openguild_build_info, namespace)", ".*"))
        .with_variable(
            _variable("instance", "Instance", 'label_values(openguild_build_info{namespace=~"$environment"}, instance)')
        )
        .with_variable(dashboard.TextBoxVariable("runbooks").label("Runbooks").default_value(RUNBOOKS))
        .annotation(deploys.expr(DEPLOYS.replace("{{$}}", f"{{{SELECTED}}}")))
    )
    numbers = itertools.count(1)
    for row, found in rows().items():
        built = built.with_row(dashboard.Row(row).id(next(numbers)))
        for panel in found:
            built = built.with_panel(_panel(panel).id(next(numbers)))
    return built


def _variable(name: str, label: str, query: str, everything: str | None = None) -> dashboard.QueryVariable:
    """`everything`: the regular expression of "All", which matches series without the label too; None: the listed values."""
    built = (
        dashboard.QueryVariable(name)
        .label(label)
        .query({"query": query, "refId": name})
        .datasource(DATASOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .multi(True)
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )
    return built if everything is None else built.all_value(everything)


def _panel(panel: Panel) -> PanelBuilder:
    built = {"timeseries": _lines, "stat": _numbers, "table": _table}[panel.kind](panel)
    section = f"#{panel.runbook}" if panel.runbook else ""
    link = dashboard.DashboardLink("Runbook").url(f"${{runbooks}}/runbooks.md{section}").target_blank(True)
    built = built.title(panel.title).description(panel.description).datasource(DATASOURCE).links([link])
    built = built.height(HEIGHT).span(panel.width).unit(panel.unit)
    for place, (expression, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expression).ref_id(chr(ord("A") + place)).datasource(DATASOURCE)
        if panel.kind == "table":
            query = query.format(PromQueryFormat.TABLE)
        query = query.range() if panel.kind == "timeseries" else query.instant()
        built = built.with_target(query.legend_format(legend) if legend else query)
    return built


def _lines(panel: Panel) -> PanelBuilder:
    style = options.GraphThresholdsStyleMode.OFF if panel.limit is None else options.GraphThresholdsStyleMode.LINE
    return (
        timeseries.Panel()
        .min(0)
        .fill_opacity(8)
        .legend(common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).placement(options.LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
        .thresholds(_thresholds(("green", None), *([("red", panel.limit)] if panel.limit is not None else [])))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    )  # fmt: skip


def _numbers(panel: Panel) -> PanelBuilder:
    built = (
        stat.Panel().color_mode(options.BigValueColorMode.BACKGROUND).text_mode(options.BigValueTextMode.VALUE_AND_NAME)
    )
    if panel.limit is not None:
        return built.thresholds(_thresholds(("green", None), ("red", panel.limit))).decimals(0)
    if panel.at_least is not None:
        return built.thresholds(_thresholds(("red", None), ("green", panel.at_least))).decimals(0)
    said = {"0": model.ValueMappingResult(text="error"), "1": model.ValueMappingResult(text="ok")}
    return built.thresholds(_thresholds(("red", None), ("green", 1.0))).mappings([model.ValueMap(options=said)])


def _table(panel: Panel) -> PanelBuilder:
    """Of labels: without the times and values, the severest first."""
    del panel
    hidden = ["Time", "Value", "__name__", "alertstate", "job", "namespace"]
    shown = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {"severity": 0, "alertname": 1, "instance": 2},
    }
    arranged = model.DataTransformerConfig(id_val="organize", options=shown)
    built = table.Panel().align(options.FieldTextAlignment.AUTO).inspect(False)
    return built.no_value("nothing fires").with_transformation(arranged)


def _thresholds(*steps: tuple[str, float | None]) -> dashboard.ThresholdsConfig:
    found = [model.Threshold(color=color, value=value) for color, value in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def document() -> dict[str, Any]:
    """The dashboard as JSON values."""
    return dict(json.loads(JSONEncoder().encode(build().build())))


def text() -> str:
    """The file."""
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
    sys.stdout.write(f"wrote {TARGET}\n")
