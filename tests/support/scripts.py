"""Loads scripts of deploy/ as modules: they are run by path and belong to no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from tests.support.server import ROOT


def script(path: str) -> ModuleType:
    """Return the script at `path`, relative to the repository's root, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
