"""What a check of `cairn doctor` returns: one thing that was seen, how bad it is, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.engine.artifact import Store

if TYPE_CHECKING:
    from tasks.engine.plan import Plan


class Severity(StrEnum):
    """error: a run fails, or something is not what was written; warning: a run may go on, and somebody should see to it."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was seen. part: what was looked at. remedy: a command to paste, or what to do; warnings and errors have one."""

    part: str
    text: str
    severity: Severity = Severity.GOOD
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.severity in (Severity.WARNING, Severity.ERROR) and not self.remedy:
            raise ValueError(f"{self.part}: {self.text}: a {self.severity} without a remedy")

    def __str__(self) -> str:
        marked = self.severity in (Severity.WARNING, Severity.ERROR)
        line = f"{self.part:<10} {f'{self.severity.upper()}: ' if marked else ''}{self.text}"
        return f"{line}\n{'':<10} -> {self.remedy}" if self.remedy else line


def good(part: str, text: str) -> Finding:
    """Something that is as it should be."""
    return Finding(part, text)


def note(part: str, text: str, remedy: str = "") -> Finding:
    """Something that is no fault, and that a person may want to know."""
    return Finding(part, text, Severity.NOTE, remedy)


def warning(part: str, text: str, remedy: str) -> Finding:
    """Something that a person should see to; the exit code stays 0."""
    return Finding(part, text, Severity.WARNING, remedy)


def error(part: str, text: str, remedy: str) -> Finding:
    """Something that is broken; the exit code is 1."""
    return Finding(part, text, Severity.ERROR, remedy)


@dataclass(frozen=True)
class Place:
    """What is looked at. plan: of the active params; None when they cannot be used, and `why` says why."""

    project: Path
    store: Store
    plan: Plan | None = None
    why: str = ""

    @property
    def state(self) -> Path:
        """The state root: the store's own, since what the store does not know is taken for damaged and removed."""
        return self.store.state

    @property
    def checked(self) -> Plan:
        """The plan, for checks that are made only where there is one."""
        assert self.plan is not None
        return self.plan
