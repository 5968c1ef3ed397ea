"""The alert rules for the Prometheus operator: `python deploy/observability/prometheus_rule.py` writes them into the component.

kustomize reads no file above its own directory, and Prometheus reads no PrometheusRule: so there are two files, and a test
holds them together.
"""

from __future__ import annotations

import sys
from pathlib import Path

RULES = Path(__file__).parent / "alerts/openguild.rules.yaml"
TARGET = Path(__file__).parents[1] / "k8s/components/prometheus-operator/prometheus-rule.yaml"
HEAD = """\
# Written by deploy/observability/prometheus_rule.py from alerts/openguild.rules.yaml: change them there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: openguild-server
spec:
"""


def text() -> str:
    _, _, groups = RULES.read_text().partition("\ngroups:\n")
    lines = ["groups:", *groups.splitlines()]
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


if __name__ == "__main__":
    TARGET.write_text(text())
    sys.stdout.write(f"wrote {TARGET}\n")
