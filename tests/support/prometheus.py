"""A real Prometheus that scrapes every second, with the rules of deploy/ and shortened durations."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.waiting import free_port, wait_until

OBSERVABILITY = Path(__file__).resolve().parents[2] / "deploy/observability"
RULES = OBSERVABILITY / "alerts/openguild.rules.yaml"
URL = "https://docs.example"  # the base of the documents' links


class Prometheus:
    """`window_secs` replaces every range in the rules; every `for` is 2 s."""

    def __init__(self, directory: Path, *targets: str, window_secs: int = 10) -> None:
        self.port = free_port()
        self._targets = directory / "targets.json"
        self._watched: dict[str, dict[str, str]] = {}
        self.watch(*targets)
        rules = re.sub(r"for: \d+m", "for: 2s", RULES.read_text())
        rules = re.sub(r"\[\d+[mh](:\d+m)?\]", lambda span: f"[{window_secs}s{':1s' if span[1] else ''}]", rules)
        (directory / "openguild.rules.yaml").write_text(rules)
        configuration = yaml.safe_load((OBSERVABILITY / "prometheus/prometheus.yaml").read_text())
        configuration["global"] |= {
            "scrape_interval": "1s",
            "evaluation_interval": "1s",
            "external_labels": {"runbooks": URL},
        }
        configuration["rule_files"] = [str(directory / "openguild.rules.yaml")]
        (job,) = configuration["scrape_configs"]
        del job["static_configs"], configuration["alerting"]
        job["file_sd_configs"] = [{"files": [str(self._targets)], "refresh_interval": "1s"}]
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self.log = directory / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={directory}/prometheus.yaml", f"--storage.tsdb.path={directory}/data",
                 f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log,
            )  # fmt: skip

    def watch(self, *targets: str, **labels: str) -> None:
        """Scrape these addresses, too, as servers of the namespace prod."""
        self._watched |= {target: {"namespace": "prod"} | labels for target in targets}
        self._write()

    def forget(self, *targets: str) -> None:
        """Stop scraping these addresses."""
        for target in targets:
            del self._watched[target]
        self._write()

    def _write(self) -> None:
        groups = [{"targets": [target], "labels": labels} for target, labels in self._watched.items()]
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps(groups))
        fresh.rename(self._targets.with_suffix(".json"))

    def get(self, path: str, **query: str) -> Any:
        """Return the data of an answer; None while there is none."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", params=query, trust_env=False, verify=False)
        except httpx.TransportError:
            return None
        return answer.json()["data"] if answer.status_code == 200 else None

    def wait_scrapes(self) -> None:
        """Wait until every target has answered a scrape."""

        def up() -> bool:
            found = (self.get("/api/v1/targets?state=active") or {}).get("activeTargets", [])
            return len(found) == len(self._watched) and all(target["health"] == "up" for target in found)

        wait_until(up, what="the scrapes")

    def alerts(self, name: str, state: str = "firing") -> list[dict[str, Any]]:
        """Return the alerts with this name and state, each with `labels` and `annotations`."""
        found = (self.get("/api/v1/alerts") or {"alerts": []})["alerts"]
        return [alert for alert in found if alert["labels"]["alertname"] == name and alert["state"] == state]

    def alert(self, name: str) -> str:
        """Return the alert's state: pending, firing, or "" if inactive."""
        found = (self.get("/api/v1/alerts") or {"alerts": []})["alerts"]
        return next((alert["state"] for alert in found if alert["labels"]["alertname"] == name), "")

    def stop(self) -> None:
        """Stop the process."""
        self.process.terminate()
        self.process.wait()
