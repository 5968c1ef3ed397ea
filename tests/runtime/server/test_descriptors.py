"""How many descriptors the process may have."""

from __future__ import annotations

import subprocess
import sys
from resource import RLIM_INFINITY

import pytest

from openguild_runtime.net.listener import MACOS_OPEN_MAX, MANY_DESCRIPTORS, wanted_descriptors


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1_024, 524_288, [524_288, MACOS_OPEN_MAX]),
        (256, RLIM_INFINITY, [MANY_DESCRIPTORS, MACOS_OPEN_MAX]),
        (64, 128, [128]),
        (128, 128, []),
        (RLIM_INFINITY, RLIM_INFINITY, []),
    ],
)
def test_what_is_tried(soft: int, hard: int, wanted: list[int]) -> None:
    assert wanted_descriptors(soft, hard) == wanted


@pytest.mark.parametrize(("soft", "hard"), [(64, 128), (128, 128)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int) -> None:
    script = f"""
import resource
from openguild_runtime.net.listener import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["128", "128", "128"]
