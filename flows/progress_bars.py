"""Long work on a terminal: one aligned bar for each part under way, with how much of how much is done and the time left."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from flows import interrupt


class Bars:
    """Bars below what is printed. They are there while something is under way, and gone without a trace afterwards.

    Nothing runs by itself: the bars are drawn when they are told of progress, so that no thread competes with a training.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        self._progress = Progress(
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(table_column=Column(justify="right")),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=Console(file=stream, highlight=False),
            auto_refresh=False,
            transient=True,
            expand=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._parts: dict[tuple[str, str], Any] = {}

    def show(self, stage: str, part: str, done: int, total: int, note: str) -> None:
        """Draw a part's progress. total: 0 where nobody knows. A part that is done, or begins anew, starts a bar of its own."""
        key = (stage, part)
        if key in self._parts and done < self._progress.tasks[self._place(key)].completed:
            self._remove(key)
        if not self._parts:
            self._progress.start()
            interrupt.cursor_is_hidden(True)
        if key not in self._parts:
            self._parts[key] = self._progress.add_task(stage, completed=done, total=total or None, note=note)
        self._progress.update(self._parts[key], completed=done, total=total or None, note=note, refresh=True)
        if total and done >= total:
            self._remove(key)
            self._stop_if_idle()

    def line(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False, emoji=False, soft_wrap=True)

    def finish(self, stage: str = "") -> None:
        """Take away the bars of a stage, or all."""
        for key in [key for key in self._parts if stage in ("", key[0])]:
            self._remove(key)
        self._stop_if_idle()

    def _place(self, key: tuple[str, str]) -> int:
        return self._progress.task_ids.index(self._parts[key])

    def _remove(self, key: tuple[str, str]) -> None:
        self._progress.remove_task(self._parts.pop(key))

    def _stop_if_idle(self) -> None:
        if not self._parts:
            self._progress.stop()
            interrupt.cursor_is_hidden(False)
