"""A trail: sections from what was asked about down to what it was made of, each of facts, of what is missing, and of details."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Facts = Mapping[str, str | Sequence[str]]
"""Label -> what is known, a line or several."""


@dataclass(frozen=True)
class Section:
    """One thing of a trail. kind: alias, version, run, a stage's name, blueprint, conversation ... name: its identity or id. missing:
    sentences on what is not known, with where it would come from. details: what is too long for the text (params, figures, messages),
    as plain values."""

    kind: str
    name: str
    facts: Facts = field(default_factory=dict)
    missing: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The section for scripts; empty facts are left out, as in the text."""
        facts = {label: value for label, value in self.facts.items() if value}
        return {"kind": self.kind, "name": self.name, "facts": facts, "missing": list(self.missing), "details": dict(self.details)}


@dataclass(frozen=True)
class Trail:
    """The sections, from what was asked about down. name: that name. stages: step -> identity of its result, of all that the
    trail passes."""

    sections: Sequence[Section]
    stages: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def document(self) -> dict[str, Any]:
        """The trail for scripts."""
        return {"name": self.name, "stages": dict(self.stages), "trail": [section.document() for section in self.sections]}


def utc(seconds: float) -> str:
    """A time for a fact. seconds: since 1970."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
