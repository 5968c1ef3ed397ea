"""Everything that code, tests and documents cite exists: rules of the protocol, RFCs, sections of documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("openguild_proto", "openguild_runtime", "ext", "tests", "docs", "benchmarks", "deploy", ".ci")
SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".md", ".yaml", ".sh", ".toml", ""}
PROTOCOL = [ROOT / "docs/protocol.md", *sorted((ROOT / "docs/protocol").glob("*.md"))]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

HEADING = re.compile(r"^##+ (\d+(?:\.\d+)?) (.+)$", re.MULTILINE)
RULE = re.compile(r"^- \*\*(\d+\.\d+\.\d+)\*\* ", re.MULTILINE)
NUMBER = r"\d{1,2}(?:\.\d{1,2}){0,2}"
CITATION = re.compile(rf"\bPROTOCOL ({NUMBER}(?:(?:, | and | to ){NUMBER}(?![\w%]))*)")
SECTION_OF_FILE = re.compile(r"docs/([\w/]+\.md), (\"[^\"]+\"|[A-Z]\w+)")
ELSEWHERE = {  # not in the repository, so readers cannot look it up
    "a contract": re.compile(r"\bCONTRACT [A\d]|\bcontract A\d"),
    "a list of defects": re.compile(r"\bD-\d{2}\b|\btest_d_?\d{2}"),
    "a list of decisions": re.compile(r'[("]A\d{1,2}(?:\)|, |: | to |\.")'),
    "the design": re.compile(r"\barchitecture, \"|\bARCHITECTURE \d"),
    "the style": re.compile(r"\bSTYLE \d"),
    "an issue": re.compile(r"\(issue[ :]"),
}


def _files() -> Iterator[Path]:
    yield from (ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if (
                path.is_file()
                and path.suffix in SUFFIXES
                and path != Path(__file__)
                and "__pycache__" not in path.parts
            ):
                yield path


TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(errors="replace") for path in _files()}
SPECIFICATION = "\n".join(path.read_text() for path in PROTOCOL)
KNOWN = {number for number, _ in HEADING.findall(SPECIFICATION)} | set(RULE.findall(SPECIFICATION))
REFERENCES = SPECIFICATION[SPECIFICATION.index("## 14 References") :].partition("\n# ")[0]


def _anchors(text: str) -> set[str]:
    """Return the anchors that a document's headings get from their words."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _titles(plain)}


def _titles(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def test_something_is_cited() -> None:
    cited = [number for text in TEXTS.values() for number in CITATION.findall(text)]
    assert len(cited) > 150
    assert len(KNOWN) > 300


def test_cited_rules_exist() -> None:
    unknown = [
        f"{name}: PROTOCOL {number}"
        for name, text in TEXTS.items()
        for citation in CITATION.findall(text)
        for number in re.findall(NUMBER, citation)
        if number not in KNOWN
    ]
    assert unknown == []


@pytest.mark.parametrize("what", ELSEWHERE)
def test_nothing_is_cited_from_elsewhere(what: str) -> None:
    found = [f"{name}: {match[0]}" for name, text in TEXTS.items() for match in ELSEWHERE[what].finditer(text)]
    assert found == []


def test_cited_rfcs_are_references() -> None:
    listed = set(re.findall(r"RFC (\d{3,4})", REFERENCES))
    cited = {(name, number) for name, text in TEXTS.items() for number in re.findall(r"\bRFC (\d{3,4})", text)}
    assert sorted((name, number) for name, number in cited if number not in listed) == []


def test_cited_sections_of_documents_exist() -> None:
    cited = [(name, *found) for name, text in TEXTS.items() for found in SECTION_OF_FILE.findall(text)]
    assert cited
    for name, document, title in cited:
        assert title.strip('"') in _titles((ROOT / "docs" / document).read_text()), (
            f"{name} cites {document}, {title!r}"
        )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_sections(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text()):
        file = path.parent / target if target else path
        assert file.exists(), target
        assert anchor in _anchors(file.read_text()), f"{target}#{anchor}"


# --- the specification itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROTOCOL, ids=lambda path: path.name)
def test_rules_stand_in_order_under_their_section(path: Path) -> None:
    section, former = "", (0,)
    for line in path.read_text().splitlines():
        heading, rule = HEADING.match(line), RULE.match(line)
        found = heading or rule
        if found is None:
            continue
        number = tuple(int(part) for part in found[1].split("."))
        assert number > former, found[1]
        former = number
        if heading is not None:
            section = heading[1]
        else:
            assert found[1].startswith(section + "."), f"{found[1]} stands in {section}"


def test_each_number_is_given_once() -> None:
    numbers = [number for number, _ in HEADING.findall(SPECIFICATION)] + RULE.findall(SPECIFICATION)
    assert sorted(one for one, other in pairwise(sorted(numbers)) if one == other) == []


def test_rules_refer_to_rules_that_exist() -> None:
    whole = re.sub(r"`[^`]*`", "", SPECIFICATION)
    within_brackets = (
        number for found in re.findall(rf"\(({NUMBER}(?:, {NUMBER})*)\)", whole) for number in found.split(", ")
    )
    three_parts = re.findall(r"(?<![\d.])\d{1,2}\.\d{1,2}\.\d{1,2}(?![\d.]*\d)", whole)
    referred = {number for number in within_brackets if "." in number} | set(three_parts) - {
        "0.0.4"
    }  # a format of Prometheus
    assert referred - KNOWN == set()


def test_the_index_names_every_section() -> None:
    index = " ".join(PROTOCOL[0].read_text().partition("## 1 ")[0].split())
    assert [
        f"{number} {title}" for number, title in HEADING.findall(SPECIFICATION) if f"{number} {title}" not in index
    ] == []
