"""What a close frame's reason says is read as it was meant, and fits into the frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.ws import reasons

MAX_REASON_BYTES = 123  # RFC 6455 5.5: a control frame's 125 bytes, less the code


@given(st.integers(0, 9_999_999))
def test_the_delay_that_is_written_is_read(delay_ms: int) -> None:
    for why in ("server restarting", "closed by the operator"):
        assert reasons.reconnect_secs(reasons.reconnect_after(why, delay_ms)) == delay_ms / 1000


@pytest.mark.parametrize("reason", ["", "server restarting", "reconnect in 99999999 ms", "reconnect in \u0663 ms"])
def test_other_reasons_advise_nothing(reason: str) -> None:
    assert reasons.reconnect_secs(reason) is None


@given(st.integers(0, 1 << 62), st.none() | st.integers(0, 1 << 62))
def test_who_lagged_is_told_where_to_resume(missed: int, resume_from: int | None) -> None:
    reason = reasons.lagged(missed, resume_from)
    assert len(reason) <= MAX_REASON_BYTES
    assert ("since=" in reason) == (resume_from is not None)
    assert str(missed if resume_from is None else resume_from) in reason
