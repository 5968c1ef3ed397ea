"""A Sphinx extension that adds the fields of Structs, the members of enums and the constants of modules to docstrings.

autodoc reads only comments that begin with `#:`. The core describes a field in an ordinary comment at the end of its line.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LONGEST_VALUE = 60


@cache
def source_of(module: str) -> tuple[dict[str, ast.ClassDef], list[ast.stmt], dict[int, str]]:
    """Return the classes of a module by name, its statements, and the comment that ends each line."""
    source = inspect.getsource(sys.modules[module])
    statements = ast.parse(source).body
    classes = {node.name: node for node in statements if isinstance(node, ast.ClassDef)}
    return classes, statements, comments_by_line(source)


def comments_by_line(source: str) -> dict[int, str]:
    """Return line number -> the comment that ends the line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.removeprefix("#:").lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def assigned(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str, str, str]]:
    """Yield each assignment to a single name: its node, name, annotation and value."""
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            value = "" if node.value is None else ast.unparse(node.value)
            yield node, node.target.id, ast.unparse(node.annotation), value
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node, node.targets[0].id, "", ast.unparse(node.value)


def has_fields(kind: Any) -> bool:
    """Return whether the class consists of fields that its source lists."""
    if not inspect.isclass(kind):
        return False
    is_named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return issubclass(kind, (msgspec.Struct, enum.Enum)) or dataclasses.is_dataclass(kind) or is_named_tuple


def field_lines(kind: type) -> Iterator[str]:
    """Yield a list of the class's fields or members, those of its bases first."""
    for owner in reversed(kind.__mro__):
        if not owner.__module__.startswith("openguild"):
            continue
        classes, _, comments = source_of(owner.__module__)
        if owner.__qualname__ not in classes:
            continue
        for node, name, annotation, value in assigned(classes[owner.__qualname__].body):
            if name.startswith("_") or annotation.startswith("ClassVar"):
                continue
            annotation, meaning = unwrapped(annotation)
            kind_of = f": ``{annotation}``" if annotation else ""
            shown = f" = ``{value}``" if value and len(value) <= LONGEST_VALUE and "\\" not in value else ""
            comment = meaning or comments.get(node.end_lineno or 0, "")
            yield f"- ``{name}``{kind_of}{shown}" + (f" -- {escaped(comment)}" if comment else "")


def unwrapped(annotation: str) -> tuple[str, str]:
    """Return the type and the description of a setting; for other fields the annotation itself and ""."""
    tree = ast.parse(annotation or "None", mode="eval").body
    if (
        not isinstance(tree, ast.Subscript)
        or ast.unparse(tree.value) != "Annotated"
        or not isinstance(tree.slice, ast.Tuple)
    ):
        return annotation, ""
    kind, *marks = tree.slice.elts
    meanings = [
        mark.args[0].value
        for mark in marks
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "Setting" and isinstance(mark.args[0], ast.Constant)
    ]
    return ast.unparse(kind), "".join(str(meaning) for meaning in meanings)


def constant_lines(module: ModuleType) -> Iterator[str]:
    """Yield a list of the module's public constants with plain values."""
    _, statements, comments = source_of(module.__name__)
    for node, name, _, value in assigned(statements):
        if not name.isupper() or name.startswith("_") or len(value) > LONGEST_VALUE or "\\" in value or "()" in value:
            continue
        known = getattr(module, name)
        computed = (
            f" = ``{known!r}``" if isinstance(known, int | float) and not value.replace("_", "").isdigit() else ""
        )
        comment = comments.get(node.end_lineno or 0, "")
        yield f"- ``{name} = {value}``{computed}" + (f" -- {escaped(comment)}" if comment else "")


def escaped(comment: str) -> str:
    """Return the comment as reStructuredText without markup."""
    return "".join(f"\\{letter}" if letter in "\\*|_" else letter for letter in comment).replace("://", "\\://")


def add_fields(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Append the fields to the docstring that autodoc has read, and mark its examples as such."""
    for number, (line, empty, example) in enumerate(zip(lines, lines[1:], lines[2:], strict=False)):
        if line.endswith(":") and not line.endswith("::") and not empty and example.startswith("    "):
            lines[number] += ":"
    if what in {"class", "exception"} and has_fields(obj):
        found = list(field_lines(obj))
    elif what == "module":
        found = list(constant_lines(obj))
        found[:0] = ["Constants:", ""] if found else []
    else:
        return
    if found:
        lines += ["", *found, ""]


SHORTER = {
    re.compile(r"TypeAliasForwardRef\('([\w.]+)'\)"): r"\1",  # an alias of `autodoc_type_aliases` within another type
    re.compile(r"\b(Limits|HeaderPolicy)\([^)]*\)(, trusted_proxies=\(\)\))?"): r"\1()",  # with all its defaults
    re.compile(r"mappingproxy\(\{\}\)"): "{}",
}


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Omit what the list of fields shows, and shorten types and defaults."""
    if what in {"class", "exception"} and has_fields(obj):
        return "", None
    for pattern, shorter in SHORTER.items():
        signature, returned = (text and pattern.sub(shorter, text) for text in (signature, returned))
    return signature, returned


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to autodoc's events."""
    app.connect("autodoc-process-docstring", add_fields)
    app.connect("autodoc-process-signature", shorten_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
