"""Where tau2's packages are: `make test-tau2` puts them there; elsewhere these tests are left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.worlds.api.loading import PROJECT
from tasks.worlds.library.tau2 import FOLDER

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the packages nothing can be played; where they were asked for (CAIRN_TAU2) that is an error of the first test."""
    if not (PROJECT / FOLDER).is_dir() and "CAIRN_TAU2" not in os.environ:
        for item in items:
            if item.path.is_relative_to(HERE) and item.get_closest_marker("tau2"):
                item.add_marker(pytest.mark.skip(reason="`make test-tau2` fetches tau2's packages"))
