"""Children that are forks of a loaded process: what they make is what others make, to the byte, and they end as others do."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.engine import process, warm
from tasks.engine.hashes import Hashes
from tests.conftest import ROOT

pytestmark = pytest.mark.xdist_group("warm")


def spec(folder: Path, **more: Any) -> dict[str, Any]:
    """Build a tiny model over a closed vocabulary: random weights, so that any stray draw would show."""
    (folder / "out").mkdir(parents=True)
    places = {"out": str(folder / "out"), "scratch": str(folder), "inputs": {"worlds": str(folder.parent / "ground"), "source": None}}
    return {
        **{"stage": "start", "room": "base", "method": "closed_vocabulary", "loop": None, "agents": None, "engine": None},
        **{"params": {"width": 32, "heads": 1, "looks_back": False}, "as_served": None, "unit": "", "seed": 0, "threads": 1},
        **{"instructions": "avx2", "device": "cpu", "prompt": {"tools": "none", "policy": "none"}, "state": str(folder), "run": "r"},
        **{"artifacts": {}, "ledger": "l", "budget": {"max_cost": 0, "max_tokens": 0}, "roles": {}},
        **{"losses": {"share": 0.9, "least": 50, "unanswered": 0.01}, **places, **more},
    }


def run(one: Mapping[str, Any]) -> dict[str, Any]:
    return process.run(one, ROOT, lambda *_: None, lambda *_: None)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A loaded process, and a folder with frozen maps."""
    from tasks.environments import frozen

    folder = tmp_path_factory.mktemp("warm")
    frozen.freeze(frozen.make("maps", {}), folder / "ground" / "maps")
    with warm.processes(ROOT, process.environment_of(1)):
        yield folder


def test_a_fork_makes_the_same_bytes(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forked = run(spec(loaded / "forked"))
    assert (loaded / "forked" / warm.LINES).exists(), "it was no fork"
    monkeypatch.setattr(warm, "_nursery", None)
    assert run(spec(loaded / "alone")) == forked
    made = [Hashes(loaded / f"state-{name}").path(loaded / name / "out") for name in ("forked", "alone")]
    assert made[0] == made[1]


def test_what_ends_a_fork_is_told(loaded: Path) -> None:
    (loaded / "nothing").mkdir()
    with pytest.raises(BadInput, match="nothing"):
        run(spec(loaded / "bad", inputs={"worlds": str(loaded / "nothing"), "source": None}))
    with pytest.raises(process.ProcessFailed, match="head_dim"):
        run(spec(loaded / "worse", params={"width": 33, "heads": 1, "looks_back": False}))


def test_other_kernels_are_no_fork(loaded: Path) -> None:
    assert warm.child(loaded, {**process.environment_of(1), "OMP_NUM_THREADS": "7"}) is None


def test_a_fork_that_is_stopped_was_cancelled(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_stopped", threading.Event())
    stopper = threading.Timer(0.05, process.stop_all)
    stopper.start()
    with pytest.raises(process.ProcessFailed, match="cancelled"):
        run(spec(loaded / "stopped"))


def test_forks_end_with_the_loaded_process(tmp_path: Path) -> None:
    """Its end, by whatever, is no fork's success; who asks afterwards gets a process of its own."""
    with warm.processes(ROOT, process.environment_of(1)):
        nursery = warm._nursery
        assert nursery is not None
        nursery._process.kill()
        nursery._process.wait()
        assert warm.child(tmp_path, process.environment_of(1)) is None
