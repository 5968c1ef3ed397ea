"""The routes that signal typing (PROTOCOL 7.12)."""

from __future__ import annotations

import pytest

from openguild_proto.hints import TypingHint
from openguild_proto.limits import MAX_TYPING_CHARS
from tests.proto.operations.test_search import Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_signal_names_the_channel_and_the_caller(scene: Scene) -> None:
    answer = scene.world.ask("POST", f"/channels/{scene.channels[0]}/typing", token=scene.alice)
    assert (answer.status, answer.body) == (204, b"")
    assert scene.world.announced == [TypingHint(scene.channels[0], scene.ids[scene.alice])]


@pytest.mark.parametrize(
    "preview", ["", "Hel", "two\nlines", "\u202eabc", "x" * MAX_TYPING_CHARS, "日本語" * 40, "👨‍👩‍👧‍👦"]
)
def test_a_preview_is_told_as_it_is(scene: Scene, preview: str) -> None:
    path = f"/channels/{scene.channels[0]}/typing-preview"
    assert scene.world.ask("POST", path, {"preview": preview}, scene.alice).status == 204
    assert scene.world.announced == [TypingHint(scene.channels[0], scene.ids[scene.alice], preview)]


@pytest.mark.parametrize(("given", "told"), [(" " * 99 + "x" * 120 + "\n", "x" * 120), ("  a b ", "a b"), (" \n", "")])
def test_a_preview_is_trimmed_before_it_is_counted(scene: Scene, given: str, told: str) -> None:
    path = f"/channels/{scene.channels[0]}/typing-preview"
    assert scene.world.ask("POST", path, {"preview": given}, scene.alice).status == 204
    assert scene.world.announced == [TypingHint(scene.channels[0], scene.ids[scene.alice], told)]


@pytest.mark.parametrize("body", [{}, {"preview": None}, {"preview": 1}, {"preview": "x" * 121}, {"preview": "a\0b"}])
def test_a_bad_preview_is_told_to_nobody(scene: Scene, body: dict[str, object]) -> None:
    answer = scene.world.ask("POST", f"/channels/{scene.channels[0]}/typing-preview", body, scene.alice)
    assert answer.status == 400
    assert scene.world.announced == []
