"""The last step of `make setup`: DVC's own temporary files stay inside the project, whoever calls `dvc`."""

from __future__ import annotations

import sys
from pathlib import Path

from flows import OUTSIDE, PROJECT
from flows.exit_codes import guarded
from tasks.contract.params import BadInput
from tasks.engine.start import check_place


def keep_inside(project: Path) -> None:
    """Write `core.site_cache_dir` into .dvc/config.local, beside whatever stands there.

    DVC takes the path as it stands, so it must be absolute and stay out of git. `dvc config` writes ASCII alone, so it is written here,
    in UTF-8. Raises BadInput for a path that DVC cannot read back.
    """
    from configobj import ConfigObj

    if "%(" in str(project):
        raise BadInput(f"{project}: DVC's configuration takes %( for the beginning of a variable. Rename the folder.")
    config = ConfigObj(str(project / ".dvc/config.local"), encoding="utf-8", interpolation=False)
    config.setdefault("core", {})["site_cache_dir"] = str(project / ".cairn/dvc")
    config.write()


def main() -> int:
    """What `python -m flows.setup` does: tell DVC where its temporary files go; returns the exit code."""
    if OUTSIDE:
        raise BadInput(OUTSIDE)
    check_place(PROJECT / ".cairn")
    keep_inside(PROJECT)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
