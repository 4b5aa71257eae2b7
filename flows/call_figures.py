"""How calls to models go, in lines for people: calls, rate, tokens, money, what was throttled, and how long the rest may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.contract.losses import FROM_TEXT, GONE, remedy


def lines(details: Mapping[str, Any]) -> list[str]:
    """One line a role, and at the end one for whatever was odd about its answers. details: of the event
    "calls" (`tasks.engine.call_figures`)."""
    out = [f"{role} {_line(figures, details)}" for role, figures in sorted(details["roles"].items())]
    if details["last"]:
        out += [line for role, figures in sorted(details["roles"].items()) for line in odd(role, figures)]
    return out


def odd(role: str, figures: Mapping[str, Any]) -> list[str]:
    """What was odd about a role's answers, a line each: how many of how many, what it is, what to do, and the first."""
    said = []
    for reason, count in figures.get("odd", {}).items():
        total = figures["offered"] if reason in ("calls_as_text", FROM_TEXT) else figures["requests"]
        name = "no answer" if reason in GONE else "odd answers"
        about = remedy(reason, role)
        said.append(
            f"{role} {name}: {count} of {total} {reason}{f': {about}' if about else ''}. First: {figures['examples'].get(reason, '')}"
        )
    return said


def _line(figures: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    said = [
        f"{figures['model']}: {figures['calls']} calls",
        f"{figures['cached']} kept" if figures["cached"] else "",
        f"{figures['calls_per_second']:.1f}/s, {figures['in_flight']} of {figures['limit']} in flight",
        f"{figures['tokens_in']:,} + {figures['tokens_out']:,} tokens ({figures['tokens_per_second']:.0f}/s)",
        f"money {figures['money']:.4f}" if figures["money"] else "",
        *(f"{count} lost ({reason})" for reason, count in figures.get("odd", {}).items() if reason in GONE),
        *(
            f"{count} {reason}"
            for reason, count in figures.get("odd", {}).items()
            if reason in ("calls_as_text", FROM_TEXT, "bad_call", "empty")
        ),
        *(f"{figures[name]} {name}" for name in ("throttled", "retries", "refusals", "truncations", "unreadable") if figures[name]),
        _left(figures, details),
    ]
    return ", ".join(part for part in said if part)


def _left(figures: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """The time that the calls of the items left take at the present rate."""
    done, total, rate = details["done"], details["total"], figures["calls_per_second"]
    if not done or not rate or done >= total:
        return ""
    seconds = (figures["calls"] + figures["cached"]) / done * (total - done) / rate
    return f"{seconds:.0f} s left" if seconds < 600 else f"{seconds / 60:.0f} min left"
