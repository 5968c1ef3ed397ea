"""The kept corpus: every file runs through its target, so a fault that fuzzing found stays found."""

from __future__ import annotations

import pytest

from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_raises_nothing(target: str) -> None:
    files = sorted((CORPUS / target).iterdir())
    assert files
    for path in files:
        TARGETS[target](path.read_bytes())


def test_the_seeds_are_in_the_corpus() -> None:
    kept = {target: {path.read_bytes() for path in (CORPUS / target).iterdir()} for target in TARGETS}
    missing = [(target, data) for target, data in seeds() if data not in kept[target]]
    assert missing == [], "run: python -m tests.fuzz.seeds"
