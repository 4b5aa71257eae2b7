"""Steps a second of every environment, 256 episodes at once on one core; and what starts, texts and the best action take.

A step is one of an episode that is not over; actions are drawn at random beforehand. Seconds are those of the processor, so that what
else the machine does counts little; each figure is the best of several rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from infra.bench import publish
from tasks.environments import Environment, NoOracle, frozen

MUST, AIM = 200_000, 1_000_000
"""Steps a second."""
VARIATIONS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "arithmetic": ({"tries": 4, "largest": 9999, "modulus": 100_000},),
    "grid": (
        {"goals": ["carry"], "limit": 40, "rooms": 2, "locked": True, "reward": "parts"},
        {"goals": ["bring", "tour"], "options": 2, "limit": 40, "rooms": 4, "sight": "near", "reward": "while"},
    ),
}
"""Params beside the defaults."""


def steps_a_second(made: Environment, episodes: int, rounds: int) -> float:
    """Steps of running episodes over the seconds of `step`, without what starts them."""
    rng, best = np.random.default_rng(0), 0.0
    for turn in range(rounds):
        made.reset(range(turn * episodes, (turn + 1) * episodes))
        actions = rng.integers(0, made.actions, (made.limit, episodes))
        running, steps, seconds = np.ones(episodes, dtype=bool), 0, 0.0
        for plan in actions:
            steps += int(running.sum())
            begun = time.process_time_ns()
            found = made.step(plan)
            seconds += (time.process_time_ns() - begun) / 1e9
            running &= ~(found.terminal | found.truncated)
        best = max(best, steps / max(seconds, 1e-9))
    return best


def an_episode(work: Callable[[], Any], episodes: int, rounds: int) -> float:
    """Microseconds of `work` for each of so many episodes."""
    times = []
    for _ in range(rounds):
        begun = time.process_time_ns()
        work()
        times.append(time.process_time_ns() - begun)
    return min(times) / 1000 / episodes


def figures(made: Environment, label: str, episodes: int, rounds: int) -> list[tuple[str, float]]:
    """All figures of an environment."""
    seeds = range(episodes)
    found = [
        (f"{label}: steps a second (must {MUST}, aim {AIM})", steps_a_second(made, episodes, rounds)),
        (f"{label}: start of an episode, microseconds", an_episode(lambda: made.reset(seeds), episodes, rounds)),
        (f"{label}: what an episode tells, microseconds", an_episode(made.tell, episodes, rounds)),
    ]
    try:
        found.append((f"{label}: first best action of an episode, microseconds", an_episode(made.oracle, episodes, 1)))
    except NoOracle:
        found.append((f"{label}: no best action is known", 0.0))
    return found


def variations() -> list[tuple[str, Environment]]:
    """Every environment, with its defaults and with what else is played here."""
    chosen = [(kind, settings) for kind in frozen.kinds() for settings in ({}, *VARIATIONS.get(kind, ()))]
    return [
        (", ".join([kind, *(f"{key} {value}" for key, value in settings.items())]), frozen.make(kind, settings))
        for kind, settings in chosen
    ]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=20)
    sizes = parser.parse_args()
    lines = [line for label, made in variations() for line in figures(made, label, sizes.episodes, sizes.rounds)]
    rates = {label: value for label, value in lines if "steps a second" in label}
    for bound, word in ((MUST, "missed"), (AIM, "short of the aim")):
        print(f"{word}: {'; '.join(label.partition(':')[0] for label, value in rates.items() if value < bound) or 'none'}")
    publish("environments", lines, vars(sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
