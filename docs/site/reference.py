"""Writes the pages of the Python reference, one for each package, from what the packages export.

A name that `openguild_proto`, `openguild_proto.client` or `openguild_runtime.client` exports is described on that package's
page. The other public names of a module are described on the page of its package.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from sphinx.util.inventory import InventoryFile

CORE = "openguild_proto"
FRONT = {  # exports of openguild_proto itself, in the order in which an embedder meets them
    "The connection": ["ServerConnection", "Phase", "Wants", "LocalProtocolError"],
    "Events of a connection": [
        "Event", "RequestReceived", "WebSocketRequested", "TextReceived", "BytesReceived", "PeerClosed", "PeerGone",
        "PeerViolated", "DeadlineExpired",
    ],
    "Requests and responses": ["Request", "Response", "OpenStream", "HeaderPolicy"],
    "Limits": ["Limits"],
    "Frames and close codes": [
        "text_frame", "binary_frame", "ping_frame", "pong_frame", "close_frame", "CloseCode", "CLOSE_CODES",
    ],
    "Fan-out": ["Hub", "Subscriber", "SubscriberState", "Lagged", "FanoutWriter", "Sequencer"],
    "Signed events": [
        "build_event", "BuiltEvent", "CanonicalError", "EventSigner", "SigningKey", "verify_event", "Verified", "UnverifiedEvent",
    ],
    "Refusals": ["ErrorCode", "Refusal", "FieldProblem"],
}  # fmt: skip
EXPORTING = ("openguild_proto.client", "openguild_runtime.client")  # packages whose page has their exports
CONTRACTS = {"The connection": "openguild_proto.connection.server", "Fan-out": "openguild_proto.fanout.hub"}
ROUTE_MODULES = (
    "context",
    "call",
    "dispatch",
    "route",
    "router",
    "routes",
    "auth",
    "health",
    "readiness",
    "openapi",
    "asyncapi",
)
# the other modules of openguild_proto.operations are the routes, which docs/api.md describes


def described(name: str) -> list[str]:
    """Return the names of a package in the order of its `__all__`."""
    module = importlib.import_module(name)
    return list(module.__all__)


def owner_of(package: str, name: str) -> tuple[str, str]:
    """Return the module that defines what the package exports as `name`, and its name there."""
    source = inspect.getsource(importlib.import_module(package))
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return owner_of(node.module or "", alias.name)
    return package, name


def directive_for(package: str, name: str, *, without_signature: bool = False) -> list[str]:
    """Return the directive that describes one exported name."""
    value = getattr(importlib.import_module(package), name)
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    elif inspect.isfunction(value):
        kind = "autofunction"
    else:
        kind = "autodata"
    if kind == "autodata":  # documented where it is assigned
        owner, original = owner_of(package, name)
        return [f".. autodata:: {owner}.{original}", "   :no-value:", ""]
    return [f".. {kind}:: {package}.{name}" + ("()" if without_signature else ""), ""]


def target(package: str, name: str) -> str:
    """Return the full name under which one exported name is described."""
    value = getattr(importlib.import_module(package), name)
    described_here = inspect.isclass(value) or inspect.isfunction(value)
    return f"{package}.{name}" if described_here else ".".join(owner_of(package, name))


def heading(text: str, mark: str) -> list[str]:
    """Return a title in reStructuredText."""
    return [text, mark * len(text), ""]


def front_page() -> str:
    """Return the page of `openguild_proto`."""
    listed = [name for names in FRONT.values() for name in names]
    assert sorted(listed) == sorted(described(CORE)), set(listed) ^ set(described(CORE))
    lines = [*heading(CORE, "="), f".. automodule:: {CORE}", "   :no-members:", ""]
    for title, names in FRONT.items():
        lines += heading(title, "-")
        if title in CONTRACTS:
            lines += [f".. automodule:: {CONTRACTS[title]}", "   :no-members:", "   :no-index:", ""]
        if len(names) > 1:
            lines += [", ".join(f":py:obj:`{name} <{target(CORE, name)}>`" for name in names), ""]
        for name in names:
            lines += directive_for(CORE, name)
    return "\n".join(lines)


def exports_page(package: str) -> str:
    """Return the page of a package with an `__all__`, without names that another page describes."""
    lines = [*heading(package, "="), f".. automodule:: {package}", "   :no-members:", ""]
    if package.startswith(CORE):
        lines += modules_of(package)
        return "\n".join(lines)
    for title, names in by_kind(package).items():
        lines += heading(title, "-")
        elsewhere = [name for name in names if owner_of(package, name)[0].startswith(CORE)]
        if elsewhere:
            lines += [".. list-table::", ""]
        for name in elsewhere:
            summary_line = summary(getattr(importlib.import_module(package), name))
            lines += [f"   * - :py:obj:`{name} <{'.'.join(owner_of(package, name))}>`", f"     - {summary_line}"]
        lines.append("")
        for name in names:
            if name not in elsewhere:
                lines += directive_for(package, name, without_signature=title == "Events")
                if name == "Client":
                    lines[-1:] = ["   :inherited-members:", ""]
    return "\n".join(lines)


def by_kind(package: str) -> dict[str, list[str]]:
    """Return the exports of a client package by kind: classes to call first, then events, errors and values."""
    module = importlib.import_module(package)
    kinds: dict[str, list[str]] = {"The client": ["Client"], "Events": [], "Errors": [], "Values": []}
    for name in described(package):
        value = getattr(module, name)
        if inspect.isclass(value) and issubclass(value, BaseException):
            kinds["Errors"].append(name)
        elif inspect.isclass(value) and issubclass(value, module.Event):
            kinds["Events"].append(name)
        elif name in {"Gateway", "Subscription"}:
            kinds["The client"].append(name)
        elif name != "Client":
            kinds["Values"].append(name)
    return kinds


def modules_of(package: str) -> list[str]:
    """Return a section for each module of the package, without names that the front page describes."""
    on_front = {owner_of(CORE, name): name for name in described(CORE)}
    lines: list[str] = []
    for module in public_modules(package):
        elsewhere = {name: front for (owner, name), front in on_front.items() if owner == module}
        lines += [*heading(module, "-"), f".. automodule:: {module}"]
        if elsewhere:
            lines.append("   :exclude-members: " + ", ".join(elsewhere))
        lines.append("")
        if elsewhere:
            names = ", ".join(f":py:obj:`{CORE}.{front}`" for front in elsewhere.values())
            lines += [f"Described under {CORE}: {names}.", ""]
    return lines


def public_modules(package: str) -> Iterator[str]:
    """Yield the modules of a package that have public names."""
    module = importlib.import_module(package)
    for info in pkgutil.iter_modules(module.__path__, package + "."):
        short = info.name.rpartition(".")[2]
        if short.startswith("_") or (package.endswith(".operations") and short not in ROUTE_MODULES):
            continue
        yield info.name


def package_page(package: str) -> str:
    """Return the page with all public names of a package."""
    lines = [*heading(package, "="), f".. automodule:: {package}", "   :no-members:", "", *modules_of(package)]
    return "\n".join(lines)


def single_modules_page(modules: list[str]) -> str:
    """Return the page of the modules that belong to no package."""
    title = "Modules of openguild_proto"
    on_front = {owner_of(CORE, name): name for name in described(CORE)}
    lines = heading(title, "=")
    for module in modules:
        elsewhere = [name for (owner, name) in on_front if owner == module]
        lines += [*heading(module, "-"), f".. automodule:: {module}"]
        if elsewhere:
            lines.append("   :exclude-members: " + ", ".join(elsewhere))
        lines.append("")
    return "\n".join(lines)


def summary(described: object) -> str:
    """Return the first line of a docstring."""
    return (described.__doc__ or "").partition("\n")[0]


def write_reference(folder: Path) -> None:
    """Write all pages, with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    core = importlib.import_module(CORE)
    found = list(pkgutil.iter_modules(core.__path__, CORE + "."))
    pages = {CORE: front_page()}
    for info in found:
        if info.ispkg:
            pages[info.name] = package_page(info.name)
    pages["openguild_proto.modules"] = single_modules_page([info.name for info in found if not info.ispkg])
    for package in EXPORTING:
        pages[package] = exports_page(package)
    for name, text in pages.items():
        (folder / f"{file_name(name)}.rst").write_text(text)
    (folder / "index.rst").write_text(index(pages))


def file_name(page: str) -> str:
    """Return the file name of a page, without suffix."""
    return page.replace("_", "-").replace(".", "-")


def index(pages: dict[str, str]) -> str:
    """Return the table of all pages."""
    lines = [
        *heading("Python reference", "="),
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - package",
        "     - contents",
    ]
    for name in pages:
        what = (
            "What belongs to no package: deadlines, events, limits, records and others"
            if name.endswith(".modules")
            else summary(importlib.import_module(name))
        )
        lines += [f"   * - :doc:`{name} <{file_name(name)}>`", f"     - {what}"]
    lines += ["", ".. toctree::", "   :hidden:", "", *(f"   {name} <{file_name(name)}>" for name in pages)]
    return "\n".join(lines) + "\n"


def undescribed(output: Path) -> list[str]:
    """Return the public classes and functions of the core, and exports of packages, that are missing in the built reference."""
    with (output / "objects.inv").open("rb") as stream:
        inventory = InventoryFile.load(stream, "", lambda _, path: path)
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    known |= {".".join(owner_of(CORE, name)) for name in described(CORE) if target(CORE, name) in known}
    wanted = {f"{package}.{name}" for package in EXPORTING[1:] for name in described(package)}
    for package in pkgutil.iter_modules(importlib.import_module(CORE).__path__, CORE + "."):
        for module in public_modules(package.name) if package.ispkg else [package.name]:
            wanted |= set(public_names(module))
    return sorted(
        name for name in wanted if name not in known and ".".join(owner_of(*name.rsplit(".", 1))) not in known
    )


def public_names(module: str) -> Iterator[str]:
    """Yield the classes and functions that a module defines for others."""
    for name, value in vars(importlib.import_module(module)).items():
        is_described = inspect.isclass(value) or inspect.isfunction(value)
        if is_described and value.__doc__ and not name.startswith("_") and value.__module__ == module:
            yield f"{module}.{name}"
