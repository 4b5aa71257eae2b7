"""The frameworks lie in .cairn/exports, which `make test-exports` puts before Python's path; elsewhere these tests are left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Their versions of shared packages would be the wrong ones for every other test, so nothing looks for them by itself."""
    for item in items:
        if item.path.is_relative_to(HERE) and "CAIRN_EXPORTS" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="`make test-exports` installs the frameworks"))
