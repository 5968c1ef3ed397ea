"""Every public name of the core has a docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "openguild_proto"
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def public_names(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for child in node.body:
        if isinstance(child, NAMED) and not child.name.startswith("_") and not is_described_elsewhere(child):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public_names(child, f"{prefix}{child.name}.")


def is_described_elsewhere(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether its docstring is elsewhere: at the getter of a property, or at the effect that it performs."""
    return any(
        (isinstance(mark, ast.Attribute) and mark.attr == "setter")
        or (isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "performs")
        for mark in node.decorator_list
    )


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_every_public_name_of_the_core_has_a_docstring(path: Path) -> None:
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module), "the module itself"
    assert [name for name, node in public_names(module) if not ast.get_docstring(node)] == []
