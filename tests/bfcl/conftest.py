"""Where the leaderboard's package is: `make test-bfcl` puts it there; elsewhere these tests are left out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLACE = Path(os.environ.get("CAIRN_BFCL") or HERE.parent.parent / ".cairn" / "bfcl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the package nothing can be played; where it was asked for (CAIRN_BFCL) that is an error of the first test."""
    if PLACE.is_dir() and str(PLACE) not in sys.path:
        sys.path.append(str(PLACE))
    if not PLACE.is_dir() and "CAIRN_BFCL" not in os.environ:
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(pytest.mark.skip(reason="`make test-bfcl` installs the leaderboard's package"))
