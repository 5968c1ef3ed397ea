"""Store results as small, readable JSON files, and the history of ratios by commit as CSV."""

from __future__ import annotations

import csv
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.lab.program import RefusedError
from benchmarks.lab.stamp import stamp

RESULTS = Path(__file__).parents[1] / "results"
SCHEMA = RESULTS / "schema.json"
HISTORY = RESULTS / "history.csv"
COLUMNS = ("commit", "date", "suite", "measure", "ratio", "low", "high", "runs")
MAX_BYTES = 100_000


def require_writable() -> None:
    """Raise RefusedError if results cannot be written. Call it before minutes of measuring."""
    if not os.access(RESULTS, os.W_OK):
        raise RefusedError(f"--save: {RESULTS} cannot be written")


def stamped(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results with their stamp."""
    return {"stamp": stamp(), **results}


def write(name: str, results: dict[str, Any]) -> None:
    """Write `results/<name>.json`.

    Raises ValueError if the file would exceed MAX_BYTES or a figure is infinite or NaN, and whatever `check` raises.
    """
    text = json.dumps(results, indent=1, sort_keys=True, allow_nan=False) + "\n"
    if len(text) > MAX_BYTES:
        raise ValueError(f"{name}.json would have {len(text):,} bytes: at most {MAX_BYTES:,} are checked in")
    check(results)
    (RESULTS / f"{name}.json").write_text(text)


def check(results: dict[str, Any]) -> None:
    """Check results against the schema, if jsonschema is installed, and the intervals of their ratios.

    Raises ValueError for a ratio outside its interval, and jsonschema's ValidationError.
    """
    if find_spec("jsonschema") is not None:
        import jsonschema

        jsonschema.validate(results, json.loads(SCHEMA.read_text()))
    for measure, found in results.get("ratios", {}).items():
        if not found["low"] <= found["ratio"] <= found["high"]:
            raise ValueError(f"{measure}: {found}")


def remember(suite: str, results: dict[str, Any], ratios: dict[str, dict[str, Any]]) -> None:
    """Append the ratios of a run to the history. Lines of the same commit, suite and measure are replaced."""
    kept = history()
    made = results["stamp"]
    for measure, found in ratios.items():
        line = {"commit": made["commit"], "date": made["date"][:10], "suite": suite, "measure": measure}
        line |= {key: f"{found[key]:g}" for key in ("ratio", "low", "high", "runs")}
        same = ("commit", "suite", "measure")
        kept = [old for old in kept if any(old[key] != line[key] for key in same)] + [line]
    with HISTORY.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def history() -> list[dict[str, str]]:
    """Return the lines of the history, oldest first."""
    if not HISTORY.exists():
        return []
    with HISTORY.open(newline="") as file:
        return list(csv.DictReader(file))
