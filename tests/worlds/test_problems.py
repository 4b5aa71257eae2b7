"""Problems that a world makes of its own: each has a ground truth that works."""

from __future__ import annotations

from tasks.worlds.api.problem_making import draw_problems


def test_every_ground_truth_replays() -> None:
    """Two wishes of one draft can clash (a payment moved to a card that the first wish emptied): such drafts are drawn again."""
    from tasks.worlds.api.runtime import World
    from tasks.worlds.library.retail import Retail

    world = World.build(Retail, 600, 0)
    problems = draw_problems(world, "train", 1500, 11)  # one draft in these 1,500 does clash
    assert all(world.replay(problem.actions).ok for problem in problems)
