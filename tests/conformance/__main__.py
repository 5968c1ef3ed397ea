"""`make conformance`: the server cases of the Autobahn test-suite against an echo mode of the core's connection.

Its fuzzing client is a Python 2.7 program. If an interpreter for it is found (python2.7, or $PYTHON27), it is installed in a
separate virtual environment; otherwise this prints a notice and ends with 0. Writes docs/conformance.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conformance.echo import serve

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-autobahn"
LIMIT_SECS = 1_800
PASSED = frozenset({"OK", "INFORMATIONAL"})  # informational: timings and close behaviour that RFC 6455 leaves open
ALLOWED = PASSED | {"NON-STRICT"}
CATEGORIES = {
    "1": "framing", "2": "pings and pongs", "3": "reserved bits", "4": "opcodes", "5": "fragmentation", "6": "UTF-8",
    "7": "close handling", "9": "limits and performance", "10": "miscellaneous", "12": "compression", "13": "compression",
}  # fmt: skip


def interpreters() -> Iterator[Path]:
    """Yield candidates for Python 2.7, the likeliest first."""
    if named := os.environ.get("PYTHON27"):
        yield Path(named)
    if found := shutil.which("python2.7"):
        yield Path(found)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob("versions/2.7*/bin/python2.7"))


def runs(python: Path) -> bool:
    try:
        return subprocess.run([python, "-c", "pass"], capture_output=True, check=False, timeout=30).returncode == 0
    except OSError:
        return False


def fuzzing_client() -> Path | None:
    """Return the installed `wstest`; None if there is no interpreter for it."""
    program = ENVIRONMENT / "bin" / "wstest"
    if program.exists():
        return program
    python = next((candidate for candidate in interpreters() if runs(candidate)), None)
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "--target", directory, "virtualenv<20.22"], check=True)
        environment = os.environ | {"PYTHONPATH": directory}
        subprocess.run([python, "-m", "virtualenv", "--quiet", ENVIRONMENT], check=True, env=environment)
    subprocess.run([ENVIRONMENT / "bin/pip", "--quiet", "install", "autobahntestsuite==25.10.1"], check=True)
    return program


AGENTS = {"openguild": "", "gateway": "/gateway"}
"""Names in the report, and the paths at which the echo server is asked."""


async def run_cases(program: Path, directory: Path) -> dict[str, dict[str, Any]]:
    """Run all cases; return agent -> case id -> line of the report."""
    server = await serve()
    port = server.sockets[0].getsockname()[1]
    specification = directory / "spec.json"
    specification.write_text(
        json.dumps(
            {
                "outdir": str(directory / "reports"),
                "servers": [{"agent": agent, "url": f"ws://127.0.0.1:{port}{path}"} for agent, path in AGENTS.items()],
                "cases": ["*"],
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    with (directory / "output").open("wb") as output:
        client = await asyncio.create_subprocess_exec(
            program, "-m", "fuzzingclient", "-s", specification, stdout=output, stderr=output, cwd=directory
        )
        async with asyncio.timeout(LIMIT_SECS):
            status = await client.wait()
    server.close()
    if status != 0:
        raise RuntimeError((directory / "output").read_text()[-2_000:])
    report: dict[str, dict[str, Any]] = json.loads((directory / "reports/index.json").read_text())
    return report


def table(reports: dict[str, dict[str, Any]]) -> tuple[str, bool]:
    """Return a Markdown table by category, with the cases of all agents together, and whether every case that ran has passed."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    failed: list[str] = []
    cases = [(agent, case, line) for agent, report in reports.items() for case, line in report.items()]
    for agent, case, line in cases:
        counts[case.partition(".")[0]][line["behavior"]] += 1
        offered = line["behavior"] != "UNIMPLEMENTED"
        if offered and (line["behavior"] not in ALLOWED or line["behaviorClose"] not in ALLOWED):
            failed.append(f"{agent} {case}: {line['behavior']}, close {line['behaviorClose']}")
    lines = [
        "| cases | category | OK | informational | non-strict | failed | not offered |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for category in sorted(counts, key=int):
        found = counts[category]
        bad = sum(number for name, number in found.items() if name not in ALLOWED | {"UNIMPLEMENTED"})
        lines.append(
            f"| {category}.* | {CATEGORIES.get(category, '')} | {found['OK']} | {found['INFORMATIONAL']} | "
            f"{found['NON-STRICT']} | {bad} | {found['UNIMPLEMENTED']} |"
        )
    run = sum(line["behavior"] != "UNIMPLEMENTED" for _, _, line in cases)
    lines += [
        "",
        f"{run - len(failed)} of {run} cases passed, {len(cases) - run} are about compression, which is not offered.",
    ]
    return "\n".join([*lines, *(f"- failed {line}" for line in failed)]) + "\n", not failed


def main() -> int:
    program = fuzzing_client()
    if program is None:
        sys.stdout.write("skipped: the Autobahn fuzzing client needs Python 2.7, and none was found (set PYTHON27)\n")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        text, passed = table(asyncio.run(run_cases(program, Path(directory))))
    sys.stdout.write(text)
    document = ROOT / "docs/conformance.md"
    head, begin, rest = document.read_text().partition("<!-- autobahn -->\n")
    _, end, tail = rest.partition("<!-- /autobahn -->")
    document.write_text(head + begin + text + end + tail)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
