"""Which conversation holds which pages: what it goes back on is freed, what others computed is found, and who must give theirs up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.players.local.generation import Sampling
from tasks.players.local.own.pages import Pages, name_of


@dataclass(eq=False)
class Row:
    """An open conversation.

    number: among the open ones, from the front; born: the older, the smaller. ids: all of them; from `start` on they were produced for
    the turn that is owed. owing: until it is produced; speaking: its prompt is read. kept: so many have keys and values in `pages`;
    names: of the full ones among those.
    """

    conversation: str
    number: int
    born: int
    ids: list[int] = field(default_factory=list)
    start: int = 0
    kept: int = 0
    pages: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    sampling: Sampling | None = None
    logprobs: list[float] = field(default_factory=list)
    owing: bool = False
    speaking: bool = False

    @property
    def want(self) -> Sampling:
        """How its present turn is sampled."""
        assert self.sampling is not None
        return self.sampling


class Memory:
    """The pages of open conversations. changes: grows whenever a conversation's pages are others than before."""

    def __init__(self, pages: Pages, rows: Mapping[str, Row]) -> None:
        self.pages, self._open = pages, rows
        self.changes = 0

    def go_back(self, row: Row, kept: int) -> None:
        """Keep the first `kept` tokens alone; a page that others may read is not written into again."""
        size = self.pages.tokens
        full = kept // size
        if kept % size and len(row.names) > full:
            kept = full * size
        wanted = -(-kept // size)
        for page in row.pages[wanted:]:
            self.pages.leave(page)
        del row.pages[wanted:], row.names[full:]
        row.kept = kept
        self.changes += 1

    def reserve(self, row: Row, tokens: int) -> bool:
        """Pages for so many tokens of a row, if need be those of others, who then read again; False when it must wait, for older
        conversations hold them all."""
        while len(row.pages) * self.pages.tokens < tokens:
            if (page := self.pages.take()) is not None:
                row.pages.append(page)
                self.changes += 1
            elif (other := self._who_gives(row)) is None:
                return False
            else:
                self.go_back(other, 0)
                other.speaking = False
        return True

    def _who_gives(self, wanting: Row) -> Row | None:
        """Someone who waits for its next turn, else the youngest that is younger."""
        holders = [row for row in self._open.values() if row.pages and row is not wanting]
        idle = [row for row in holders if not row.owing]
        return max(idle or [row for row in holders if row.born > wanting.born], key=lambda row: row.born, default=None)

    def name_full(self, row: Row) -> None:
        """Let others find the full pages of a row."""
        for name in self._names(row, row.kept):
            self.pages.name(row.pages[len(row.names)], name)
            row.names.append(name)

    def find_shared(self, row: Row) -> list[bytes]:
        """Take what is computed already of a row's prompt, but for its last token; names of the pages that are yet to be computed."""
        if len(row.names) < len(row.pages):  # it has begun a page of its own
            return []
        names = self._names(row, len(row.ids) - 1)
        for at, name in enumerate(names):
            if (page := self.pages.find(name)) is None:
                return names[at:]
            row.pages.append(page)
            row.names.append(name)
            row.kept += self.pages.tokens
            self.changes += 1
        return []

    def _names(self, row: Row, tokens: int) -> list[bytes]:
        """Names of the full pages within a row's first tokens, after those that have theirs."""
        size, names, last = self.pages.tokens, [], row.names[-1] if row.names else row.want.adapter.encode()
        for at in range(len(row.names), tokens // size):
            names.append(last := name_of(last, row.ids[at * size : (at + 1) * size]))
        return names
