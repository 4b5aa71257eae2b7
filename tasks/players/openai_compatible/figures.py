"""Live figures of the calls of this process: one set for each role of a run."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.players.openai_compatible.rate_limit import RateLimiter

SECONDS = 10
"""Over which the rate of calls is taken."""


@dataclass
class Figures:
    """Counts of one role since the process started. Written by the event loop's thread, read by any.

    calls: answers paid for. cached: answered without paying (kept, or asked for at the same time by somebody else). uncounted:
    paid answers whose server gave no token counts, so that they are estimated. repairs: second rounds; repaired: those that helped.
    requests: those that were answered or lost, kept answers among them; offered: those of them that offered tools. odd: what was odd
    about answers, and why calls were lost (`tasks.contract.losses`), one reason a request; examples: of the first with each reason.
    """

    model: str = ""
    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0
    money: float = 0.0
    throttled: int = 0
    failures: int = 0
    retries: int = 0
    set_aside: int = 0
    refusals: int = 0
    truncations: int = 0
    repairs: int = 0
    repaired: int = 0
    unreadable: int = 0
    requests: int = 0
    offered: int = 0
    odd: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    by: Counter[str] = field(default_factory=Counter)
    limiter: RateLimiter | None = None
    _last: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)] * SECONDS)

    def paid(self, tokens_in: int, tokens_out: int, money: float) -> None:
        """One more paid answer, now."""
        self.calls += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.money += money
        now = int(time.monotonic())
        second, count = self._last[now % SECONDS]
        self._last[now % SECONDS] = (now, count + 1 if second == now else 1)

    def note(self, reason: str, example: str) -> None:
        """One more request with something odd about it."""
        self.odd[reason] += 1
        self.examples.setdefault(reason, example)

    def rate(self) -> float:
        """Paid answers a second, over the last ten whole seconds at most."""
        now = int(time.monotonic())
        recent = [(second, count) for second, count in list(self._last) if count and now - SECONDS < second < now]
        return sum(count for _, count in recent) / (now - min(second for second, _ in recent)) if recent else 0.0

    def plain(self) -> dict[str, Any]:
        """Plain values. by: what the server says answered (model, fingerprint) -> answers. in_flight, waiting, limit and last_error
        are of the model's limiter, which roles with the same model share."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, (int, float, str)) and not name.startswith("_")}
        limiter = self.limiter
        return {
            **plain,
            "by": dict(self.by),
            "odd": dict(sorted(self.odd.items())),
            "examples": dict(sorted(self.examples.items())),
            "calls_per_second": round(self.rate(), 2),
            "in_flight": limiter.in_flight if limiter else 0,
            "waiting": limiter.waiting if limiter else 0,
            "limit": int(limiter.limit) if limiter else 0,
            "last_error": limiter.last_error if limiter else "",
        }


_all: dict[tuple[str, str], Figures] = {}


def of(run: str, role: str) -> Figures:
    """The figures of a role in a run; the same object each time."""
    return _all.setdefault((run, role), Figures())


def stats(run: str = "") -> dict[str, dict[str, Any]]:
    """role -> its figures in this process, of the run named (`Job.key.digest`), or of whichever came last. From any thread."""
    return {role: found.plain() for (name, role), found in list(_all.items()) if run in ("", name)}


def forget() -> None:
    """Start from nothing; a fork does, so that nothing is counted twice."""
    _all.clear()
