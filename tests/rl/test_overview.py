"""The table of all specialists' rewards: whatever the worlds are called, and however long each of them trained."""

from __future__ import annotations

from pathlib import Path

from tasks.rl.core import overview


def test_the_mean_is_that_of_the_worlds_that_took_the_step(tmp_path: Path) -> None:
    for world, text in (("shop", "step,reward\n1,0.5\n2,0.25\n3,\n"), ("kiosk", "step,reward\n1,0.0\n")):
        (tmp_path / world).mkdir()
        (tmp_path / world / "curves.csv").write_text(text)
    overview.write(tmp_path, ["kiosk", "shop"])
    assert (tmp_path / "rewards.csv").read_text() == "step,mean,kiosk,shop\n1,0.25,0,0.5\n2,0.25,,0.25\n"
