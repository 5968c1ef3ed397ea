"""Atomic file writes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openguild_runtime.system.atomic_file import read_stripped, remove_temporary_files, write_atomically
from tests.support.server import ROOT
from tests.support.waiting import wait_until

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_write_replaces_the_file_with_private_mode(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("before")
    path.chmod(0o644)
    write_atomically(path, "after")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("after", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """A limit on the size of files fails the write itself, as a full disk does."""
    path = tmp_path / "kept"
    path.write_text("before")
    script = (
        "import pathlib, resource, signal, sys\nfrom openguild_runtime.system.atomic_file import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))\nwrite_atomically(pathlib.Path(sys.argv[1]), 'much too long')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert "OSError: [Errno 27]" in done.stderr
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_text_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    script = (
        "import itertools, pathlib, sys\nfrom openguild_runtime.system.atomic_file import write_atomically\n"
        "for number in itertools.count(): write_atomically(pathlib.Path(sys.argv[1]), f'{number % 10}' * 300_000)"
    )
    for _ in range(5):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", script, str(path)], env=ENVIRONMENT) as writer:
            wait_until(path.exists)
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(random.uniform(0.0, 0.05))
            writer.send_signal(signal.SIGKILL)
        text = path.read_text()
        assert text == text[:1] * 300_000
    remove_temporary_files(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "line"), [(b"", None), (b"\0\0\0", None), (b" \n", None), (b" key\n", "key"), (b"\xff", "\ufffd")]
)
def test_empty_and_zeroed_files_count_as_missing(content: bytes, line: str | None, tmp_path: Path) -> None:
    assert read_stripped(tmp_path / "kept") is None
    (tmp_path / "kept").write_bytes(content)
    assert read_stripped(tmp_path / "kept") == line
