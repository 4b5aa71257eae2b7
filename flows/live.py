"""How calls to models go, in lines for people: calls, rate, tokens, money, what was throttled, and how long the rest may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lines(about: Mapping[str, Any]) -> list[str]:
    """One line a role. about: the event "calls" (`tasks.live`)."""
    return [f"{role} {_line(figures, about)}" for role, figures in sorted(about["roles"].items())]


def _line(figures: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    said = [
        f"{figures['model']}: {figures['calls']} calls",
        f"{figures['cached']} kept" if figures["cached"] else "",
        f"{figures['calls_per_second']:.1f}/s, {figures['in_flight']} of {figures['limit']} in flight",
        f"{figures['tokens_in']:,} + {figures['tokens_out']:,} tokens ({figures['tokens_per_second']:.0f}/s)",
        f"money {figures['money']:.4f}" if figures["money"] else "",
        *(f"{figures[name]} {name}" for name in ("throttled", "retries", "refusals", "truncations", "unreadable") if figures[name]),
        _left(figures, about),
    ]
    return ", ".join(part for part in said if part)


def _left(figures: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The time that the calls of the items left take at the present rate."""
    done, total, rate = about["done"], about["total"], figures["calls_per_second"]
    if not done or not rate or done >= total:
        return ""
    seconds = (figures["calls"] + figures["cached"]) / done * (total - done) / rate
    return f"{seconds:.0f} s left" if seconds < 600 else f"{seconds / 60:.0f} min left"
