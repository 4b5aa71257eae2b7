"""The room's loop on an environment: a model that can hardly walk learns to walk to a thing, by what its own episodes bring."""

from __future__ import annotations

import pytest

from tasks.contract.params import BadInput
from tests.environments.rooms import Rooms

GRID = {"grid": {"size": 3, "things": 1, "goals": ["reach"], "limit": 4, "reward": "reach"}}
START = {"learning_rate": 5e-3, "batch_tokens": 512, "warmup": 2, "log_every": 20, "save_every": 100, "validation_rows": 8}
LOOP = {
    "steps": 24,
    "groups": 8,
    "group_size": 8,
    "lr": 3e-3,
    "screen_problems": 32,
    "screen_trials": 4,
    "pool": 32,
    "validate_every": 12,
    "validation_problems": 32,
    "validation_temperature": 1.0,
    "max_turns": 4,
    "max_turn_tokens": 4,
    "max_episode_tokens": 96,
    "max_family_fall": 1.0,
}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    """A model that knows the replies, from an expert that goes astray in most steps."""
    made = Rooms(tmp_path_factory.mktemp("rooms"))
    made.worlds(GRID)
    made.base()
    made.rows({"play": {"environment": "grid", "rows": {"train": 200, "validation": 8, "test": 0}, "errors": {"stray": 0.9}}})
    made.sft("base", "rows", "start", epochs=1, **START)
    return made


def test_grpo_learns_a_grid(rooms: Rooms) -> None:
    figures = rooms.rl("start", "grid", "reinforced", **LOOP)
    assert figures["steps"] == 24 and figures["tokens_trained"] > 0
    assert figures["conversations_lost_by"] == {"agent": figures["conversations_lost_by"]["agent"], "human": 0, "tool": 0}
    assert figures["reward_last"] > figures["reward_first"] + 0.1, figures
    assert figures["validation_best"] > figures["validation_start"], figures
    # Of 67 different starts 4 are of validation: the best checkpoint is the best on those, and evaluate says the same of it.
    said = rooms.episodes(["start", "reinforced"], episodes=100, split="validation", temperature=1.0, max_turn_tokens=4)["scores"]
    assert said["reinforced"]["grid"]["accuracy"] > said["start"]["grid"]["accuracy"] + 0.1, said


def test_too_few_turns_for_an_episode_are_refused(rooms: Rooms) -> None:
    with pytest.raises(BadInput, match=r"world grid: a conversation takes up to 4 turns, and 3 are allowed"):
        rooms.rl("start", "grid", "short", **{**LOOP, "max_turns": 3})
    with pytest.raises(BadInput, match=r"no world 'gird'. Did you mean 'grid'\?"):
        rooms.rl("start", "gird", "elsewhere", **LOOP)


def test_the_same_run_leaves_the_same_curve(rooms: Rooms) -> None:
    short = {**LOOP, "steps": 2, "validate_every": 2, "min_trained": 0}
    rooms.rl("start", "grid", "once", **short)
    rooms.rl("start", "grid", "again", **short)
    assert (rooms.folder / "once" / "curves.csv").read_bytes() == (rooms.folder / "again" / "curves.csv").read_bytes()
