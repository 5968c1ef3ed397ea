"""The code in the documents runs, or is at least well formed where it needs another machine.

Examples that are programs are run by tests/integration/test_examples.py, the commands of the tutorials by
tests/integration/test_tutorials.py, those of the runbooks by the tests of incidents.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import openguild_proto
from openguild_runtime.cli.main import build_parser
from tests.docs.blocks import BLOCKS, DOCUMENTS, ROOT, Block, of_language
from tests.support.waiting import wait_until

EXAMPLES = [path.read_text() for path in sorted((ROOT / "docs/examples").iterdir())]
PROGRAMS = [block for block in of_language("python") if "sys.argv" in block.code]
INLINE = re.compile(r"`(openguild-server [^`\n]+)`")
COMMAND = re.compile(
    r"(?<![\w./-])(?<!generic )(?<!secret )openguild-server((?: +(?:'[^']*'|\"[^\"]*\"|[^\s|<>;&)#'\"]+))*)"
)


def by_name(block: Block) -> str:
    return block.name


def names_of(document: str) -> dict[str, object]:
    """What the example of the README has from its surroundings."""
    if document != "README.md":
        return {}
    sent: list[bytes] = []
    surroundings = {"time": time, "secrets": secrets, "sock": SimpleNamespace(sendall=sent.append)}
    return {**vars(openguild_proto), **surroundings, "chunk": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"}


@pytest.mark.parametrize("block", [block for block in of_language("python") if block not in PROGRAMS], ids=by_name)
def test_python_runs(block: Block) -> None:
    exec(compile(block.code, block.name, "exec"), names_of(block.document))


def test_the_example_of_the_package_serves() -> None:
    [code] = re.findall(r"^(    import .*?)\n\n\S", openguild_proto.__doc__ or "", re.MULTILINE | re.DOTALL)
    once = textwrap.dedent(code).replace("while True:", "for _ in range(1):").replace("8081", "0")
    names: dict[str, Any] = {}
    thread = threading.Thread(target=exec, args=(compile(once, "openguild_proto", "exec"), names))
    thread.start()
    wait_until(lambda: "listener" in names)
    with names["listener"] as listener, socket.create_connection(listener.getsockname()) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        thread.join(timeout=10)
        assert sock.recv(65_536).endswith(b"hello")


@pytest.mark.parametrize("block", PROGRAMS, ids=by_name)
def test_programs_are_run_elsewhere(block: Block) -> None:
    assert block.code in EXAMPLES or block.document == "docs/tutorials/client.md"
    compile(block.code, block.name, "exec")


@pytest.mark.parametrize("block", of_language("json", "json5"), ids=by_name)
def test_json_is_well_formed(block: Block) -> None:
    for part in re.findall(r"^\{.*\}$", block.code, re.MULTILINE):
        json.loads(re.sub(r"/\*.*?\*/", "", part))


@pytest.mark.parametrize("block", of_language("yaml"), ids=by_name)
def test_yaml_is_well_formed(block: Block) -> None:
    assert yaml.safe_load(block.code)


@pytest.mark.parametrize("block", of_language("js"), ids=by_name)
def test_javascript_is_well_formed(block: Block, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    path = tmp_path / "block.mjs"
    path.write_text(block.code)
    checked = subprocess.run([node, "--check", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("block", of_language("nginx"), ids=by_name)
def test_nginx_takes_its_configuration(block: Block, tmp_path: Path) -> None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("no nginx on this machine")
    temporary = [
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ]
    http = "\n".join(["access_log off;", *temporary, block.code.replace("443 ssl", "127.0.0.1:8443")])
    path = tmp_path / "nginx.conf"
    path.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ {http} }}")
    checked = subprocess.run([nginx, "-t", "-c", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_the_shell_parses_its_blocks() -> None:
    for block in of_language("bash", "console"):
        code = re.sub(r"<[\w ]+>", "name", block.code)  # what the reader fills in
        checked = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{block.name}: {checked.stderr}"


def commands(text: str) -> Iterator[str]:
    """The arguments of each command of the server in a text."""
    joined = re.sub(r"<[\w ]+>", "00000000-0000-4000-8000-000000000000", re.sub(r"\\\n\s*", "", text))
    for found in COMMAND.finditer(joined):
        if found[1].strip():
            yield found[1].rstrip(" \\")


def refusals(place: str, text: str, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """What the command line's parser says against the commands in a text."""
    for arguments in commands(text):
        try:
            build_parser().parse_args(shlex.split(arguments))
        except SystemExit as ended:
            if ended.code:
                yield f"{place}: {arguments}: {capsys.readouterr().err.splitlines()[-1]}"


def test_the_server_knows_the_commands_of_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = of_language("bash", "console")
    assert sum(1 for block in blocks for _ in commands(block.code)) > 20
    assert [line for block in blocks for line in refusals(block.name, block.code, capsys)] == []


def test_the_server_knows_the_commands_in_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    said = [(path.name, shown) for path in DOCUMENTS for shown in INLINE.findall(path.read_text())]
    said = [(place, shown) for place, shown in said if "..." not in shown and "[" not in shown]
    assert len(said) > 20
    found = [line for place, shown in said for line in refusals(place, shown, capsys)]
    assert [line for line in found if "unrecognized" in line or "invalid choice" in line] == []


def test_every_language_is_checked() -> None:
    checked = {"python", "json", "json5", "js", "bash", "console", "yaml", "nginx", ""}
    assert {block.language for block in BLOCKS} <= checked


def test_documents_are_named_in_one_case() -> None:
    names = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [name for name in names if not re.fullmatch(r"([a-z]+/)?[a-z0-9-]+\.md", name)] == []
