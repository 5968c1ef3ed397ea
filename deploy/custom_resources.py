"""Check custom resources against the models of their operator: `python deploy/custom_resources.py MANIFESTS...`.

`make validate` runs it with the Python of build/python_tools, which has the models. They take any field: what does not come back
from them is unknown to the operator.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from cloudcoil.models.prometheus_operator import v1

GROUP = "monitoring.coreos.com/v1"


def unknown(given: Any, known: Any, path: str) -> Iterator[str]:
    """Yield the paths of fields that are not in what the model gave back."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{path}.{key}"
            else:
                yield from unknown(value, known[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(known, list):
        for number, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from unknown(one, other, f"{path}[{number}]")


def main(files: list[str]) -> int:
    problems, checked = [], 0
    for file in files:
        for found in yaml.safe_load_all(Path(file).read_text()):
            if found is None or found.get("apiVersion") != GROUP:
                continue
            model = getattr(v1, found["kind"])
            read = model.model_validate(found)  # raises for a missing field or a wrong type
            name = f"{Path(file).name}: {found['kind']} {found['metadata']['name']}"
            known = read.model_dump(by_alias=True, exclude_unset=True, mode="json")
            problems += [f"{name}: {path}: unknown" for path in unknown(found, known, "")]
            checked += 1
    sys.stdout.write("\n".join([*problems, f"{checked} custom resources"]) + "\n")
    return int(bool(problems) or not checked)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
