"""A figure of a benchmark of worlds, and the most that it may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One figure: what, ours in microseconds (or a count), the most it may be, and the peer's."""

    what: str
    value: float
    must: float | None = None
    peer: str = ""

    @property
    def label(self) -> str:
        """The figure's name with what it is held against."""
        held = ([f"must {self.must:g}"] if self.must is not None else []) + ([f"tau2 {self.peer}"] if self.peer else [])
        return f"{self.what} ({', '.join(held)})" if held else self.what

    @property
    def missed(self) -> bool:
        """Whether it is more than it may be."""
        return self.must is not None and self.value > self.must
