"""Fixtures for the tests of docs/web."""

from __future__ import annotations

import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def node() -> str:
    """Return the path of Node, in a release with a WebSocket that can be enabled."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node on this machine")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.skip(f"node {version.strip()} is older than 20")
    return program
