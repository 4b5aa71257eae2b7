"""Whether a paper's results are those of the code as it is now. A notice for people, and no reason for a test to fail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.claims.declaration import Claim
from flows.claims.results import Results
from tasks.engine.hashes import file_md5

State = Literal["current", "older", "missing"]


@dataclass(frozen=True)
class Standing:
    """state: current; older, files that cells used are other ones now; missing, cells that the claim needs are not there. open_cells:
    how many of `cells` those are, or failed. differing: paths of files that changed, or are gone, since cells were measured."""

    state: State
    open_cells: int
    cells: int
    differing: tuple[str, ...]

    def in_words(self) -> str:
        """The state with what it follows from."""
        if self.state == "missing":
            return f"missing: {self.open_cells} of {self.cells} cells"
        return f"older: {', '.join(self.differing)}" if self.differing else "current"


def standing(claim: Claim, results: Results | None, project: Path) -> Standing:
    """How results stand to the files of a project; None: nothing was measured."""
    cells = claim.seeds * len(claim.arms())
    if results is None:
        return Standing("missing", cells, cells, ())
    used = sorted({(path, md5) for cell in results.cells if not cell.failed for path, md5 in cell.code.items()})
    now = {path: file_md5(project / path) if (project / path).is_file() else "" for path, _ in used}
    differing = tuple(sorted({path for path, md5 in used if now[path] != md5}))
    missing = len(results.open_cells(claim))
    return Standing("missing" if missing else "older" if differing else "current", missing, cells, differing)
