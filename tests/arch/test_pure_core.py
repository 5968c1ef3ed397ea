"""The layer rules of the architecture: the core does no I/O, reads no clock and uses no randomness."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "openguild_proto"
NEVER_IMPORTED = {
    "openguild_runtime", "socket", "asyncio", "anyio", "trio", "ssl", "select", "selectors", "threading", "subprocess", "os",
    "time", "random", "secrets", "logging", "asyncpg", "nats", "multiprocessing", "concurrent", "signal", "pathlib", "io",
}  # fmt: skip
# `os`, `time` and `io` are loaded by the interpreter; `random`, `threading` and `_socket` by libraries, which use them for
# nothing that the core calls. Modules that open sockets, loops or processes must not even be loaded.
NEVER_LOADED = {
    "openguild_runtime", "socket", "asyncio", "anyio", "trio", "ssl", "_ssl", "select", "selectors", "subprocess",
    "secrets", "logging", "asyncpg", "nats", "multiprocessing", "concurrent.futures",
}  # fmt: skip
MODULES = sorted(CORE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_module_imports_no_io(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imported.add(node.module.split(".")[0])
    assert imported.isdisjoint(NEVER_IMPORTED), f"{path.name} imports {imported & NEVER_IMPORTED}"


def test_core_loads_no_io_in_a_fresh_interpreter() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    script = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}"],
                          capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
    loaded = set(json.loads(done.stdout))
    assert loaded.isdisjoint(NEVER_LOADED), sorted(loaded & NEVER_LOADED)
    assert "openguild_proto.connection.server" in loaded


def test_every_source_file_can_be_held_in_the_head() -> None:
    folders = (CORE, ROOT / "openguild_runtime", ROOT / "tests", ROOT / "benchmarks")
    sources = [*(path for folder in folders for path in folder.rglob("*.py")), *(ROOT / "ext").glob("*.pyx")]
    too_long = {str(path.relative_to(ROOT)): lines for path in sources if (lines := path.read_text().count("\n")) > 400}
    assert not too_long
