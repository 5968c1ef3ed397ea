"""A performer's registry is what its functions say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from openguild_proto.effects.performs import Performed, collect, performs
from openguild_proto.effects.process import CheckReadiness, RenderMetrics
from openguild_proto.errors import LocalProtocolError


@performs(RenderMetrics)
def render(of: object, effect: RenderMetrics) -> bytes | None:
    return b""


@performs(CheckReadiness, "slowly")
def check(of: object, effect: CheckReadiness) -> None:
    return None


@performs(RenderMetrics)
def render_again(of: object, effect: RenderMetrics) -> bytes | None:
    return None


def test_functions_are_collected_with_their_way() -> None:
    module = SimpleNamespace(render=render, check=check, other=len)
    assert collect(module) == {RenderMetrics: Performed(render, None), CheckReadiness: Performed(check, "slowly")}


def test_an_imported_function_counts_once() -> None:
    assert collect(SimpleNamespace(render=render), SimpleNamespace(imported=render)).keys() == {RenderMetrics}


def test_two_performers_of_one_effect_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="RenderMetrics"):
        collect(SimpleNamespace(render=render), SimpleNamespace(render=render_again))
