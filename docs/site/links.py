"""Checks a built site: links lead to files and sections, external addresses are well formed, nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
NOT_LOADED = {"index", "search", "next", "prev", "canonical"}  # kinds of <link> that only refer to a page


class Page(HTMLParser):
    """The ids of a page, its links, and the files that it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Record the ids, links and loaded files of an element."""
        values = {name: value or "" for name, value in attributes}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif tag in LOADING and values.get(LOADING[tag]) and values.get("rel") not in NOT_LOADED:
            self.loaded.add(values[LOADING[tag]])


def problems(site: Path) -> list[str]:
    """Return one line for each wrong link."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = [
        f"{path.relative_to(site)}: {problem}"
        for path, page in pages.items()
        for problem in problems_of(path, page, pages)
    ]
    for path in site.rglob("*.css"):
        found += [
            f"{path.relative_to(site)}: loads {address}"
            for address in re.findall(r"url\(['\"]?((?:https?:)?//[^)'\"]+)", path.read_text())
        ]
    return found


def problems_of(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    """Yield the wrong links of one page."""
    for address in sorted(page.loaded):
        target = urlsplit(address)
        if target.scheme not in {"", "data"} or target.netloc:
            yield f"loads {address}"
        elif not target.scheme and not (path.parent / unquote(target.path)).is_file():
            yield f"loads {address}, which is no file"
    for address in sorted(page.links):
        target = urlsplit(address)
        if target.scheme in {"http", "https"}:
            if not re.fullmatch(r"[a-z0-9.-]+(:\d+)?", target.netloc):
                yield f"{address} is no address"
        elif target.scheme:
            if target.scheme != "mailto":
                yield f"{address} is an unexpected kind of link"
        else:
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            if not file.is_file():
                yield f"{address} leads to no file"
            elif target.fragment and file in pages and unquote(target.fragment) not in pages[file].ids:
                yield f"{address} leads to no section"
