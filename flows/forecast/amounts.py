"""How many tokens a road's stages train on, read and produce: of what is there already, else of a small run with scripts, scaled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from flows import token_caps
from flows.small_run import PROBLEMS, SmallRun
from tasks.checkpoints.reading import readable
from tasks.contract.params import StageFailed
from tasks.engine import methods
from tasks.engine.settings import Settings
from tasks.worlds.api.system_prompt import system_message, tools_of

if TYPE_CHECKING:
    from tasks.contract.client import Message
    from tasks.worlds.api.runtime import World

CHARACTERS = 4
"""A token, before there is a tokenizer."""
END = 1
"""Tokens with which the agent ends what it says."""
FRAME = 5
"""Tokens around a message, where no chat format is proven yet; of ChatML: start, role, two line ends, end."""


@dataclass(frozen=True)
class Talk:
    """Means of one world's conversations, in tokens. shared: the system prompt, with which all begin. whole: all of it. own: what
    the agent says, its ends with it, in so many turns."""

    shared: float
    whole: float
    own: float
    turns: float


@dataclass(frozen=True)
class Rows:
    """Rows to train on. sample: of the train split, each with its world. times: as many of each are wanted. how: in words, where the
    numbers are from."""

    sample: Sequence[tuple[str, Talk]]
    times: float
    how: str

    def sum(self, name: str) -> float:
        """Of a field of all rows."""
        return self.times * sum(getattr(talk, name) for _, talk in self.sample)

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return round(max(talk.whole for _, talk in self.sample))

    def within(self, most: int, name: str) -> Rows | None:
        """Those of at most `most` tokens, as training leaves out the others: how says so. None when none is. name: of the limit."""
        fit = [(world, talk) for world, talk in self.sample if talk.whole <= most]
        if len(fit) == len(self.sample):
            return self
        return Rows(fit, self.times, f"{self.how}, {self.too_long(most, name)}") if fit else None

    def too_long(self, most: int, name: str) -> str:
        """How many are longer, in words."""
        long = [talk.whole for _, talk in self.sample if talk.whole > most]
        count = f"{len(long):,} of {len(self.sample):,} rows"
        return f"but {count} are left out: they have {min(long):,.0f} tokens or more, {name} is {most:,}"

    @property
    def mean(self) -> Talk:
        """The mean row."""
        return mean([talk for _, talk in self.sample])


def mean(talks: Sequence[Talk]) -> Talk:
    """The mean of some conversations."""
    return Talk(*(fmean(getattr(talk, one.name) for talk in talks) for one in fields(Talk)))


class Counter:
    """Counts tokens as a checkpoint's folder does; without one, by characters."""

    def __init__(self, checkpoint: Path | None) -> None:
        self._tokenizer: Any = None
        self.how = f"at {CHARACTERS} characters a token, as there is no tokenizer yet"
        if checkpoint is not None and (checkpoint / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            with readable(f"{checkpoint}: its tokenizer cannot be loaded"):
                self._tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
            self.how = "in the checkpoint's own tokens"

    def text(self, text: str) -> int:
        """Tokens of a text."""
        if self._tokenizer is None:
            return -(-len(text) // CHARACTERS)
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def start(self, world: World, prompt: Mapping[str, str]) -> int:
        """Tokens of a world's system prompt."""
        tools = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools_of(world, prompt))
        said = system_message(world, prompt) or ""
        return self.text(said) + self.text(tools) + FRAME * bool(said or tools)

    def talk(self, shared: int, messages: Sequence[Message]) -> Talk:
        """A conversation behind its system prompt of `shared` tokens, up to the agent's last turn."""
        last = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
        sizes = [(message["role"] == "assistant", self.text(_words(message))) for message in messages[: last + 1]]
        own = [size + END for spoken, size in sizes if spoken]
        return Talk(shared, shared + sum(size + FRAME for _, size in sizes), sum(own), len(own))


def _words(message: Message) -> str:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return str(message.get("content") or "") + "".join(json.dumps(call, ensure_ascii=False, default=str) for call in calls)


@dataclass(frozen=True)
class Amounts:
    """settings: of the road. folder: empty, for a small run. opened: the folder that a step has left, None when it has not."""

    settings: Settings
    folder: Path
    counter: Counter
    opened: Callable[[str], Path | None]

    def talks(self, stage: str) -> dict[str, Talk]:
        """World -> what a conversation in it is like, as scripts play it; of a step that plays unseen worlds, these among them."""
        from tasks.worlds.api.frozen import load_all

        found: dict[str, Talk] = {}
        prompt = self.settings.shared.prompt.model_dump()
        worlds = load_all(self._worlds(stage), methods.reads_unseen(self.settings.room(stage)))
        for name, world in worlds.items():
            _, said, more = token_caps.conversations(world, self.settings.shared.seed)
            shared = self.counter.start(world, prompt)
            talk = mean([self.counter.talk(shared, messages) for messages in said])
            found[name] = replace(talk, whole=talk.whole + more)
        return found

    def _worlds(self, stage: str) -> Path:
        step = self.settings.road.input(stage, "worlds")
        return (self.opened(step) if step else None) or self.folder / (step or stage)

    def rows(self, stage: str) -> Rows | None:
        """What the filter before a step keeps for training; None when a small run keeps nothing, so that nobody knows."""
        road, step = self.settings.road, self.settings.road.input(stage, "filter")
        if step is None:
            return None
        there = self.opened(step)
        return self._counted(there or self.folder / step, stage, 1.0 if there else self.scale(road[step].inputs))

    def scale(self, steps: Sequence[str]) -> float:
        """How many times as many problems the params want as the small run plays."""
        found = [self.settings.params(step) for step in steps if self.settings.room(step) == "generate"]
        return max(
            (getattr(params, "problems", PROBLEMS) / min(PROBLEMS, getattr(params, "problems", PROBLEMS)) for params in found),
            default=1.0,
        )

    def _counted(self, folder: Path, stage: str, scale: float) -> Rows | None:
        from tasks.contract.rows import message_of
        from tasks.contract.schemas import DATASET, some
        from tasks.contract.tables import read_rows
        from tasks.worlds.api.frozen import load_all

        prompt = self.settings.shared.prompt.model_dump()
        starts = {name: self.counter.start(world, prompt) for name, world in load_all(self._worlds(stage)).items()}
        if not (folder / "dataset.parquet").is_file():  # a small run that ended early
            return None
        wanted = some(DATASET, "world", "keep", "split", "messages")
        kept = [row for row in read_rows(folder / "dataset.parquet", wanted) if row["keep"] and row["split"] == "train"]
        talks = [(row["world"], self.counter.talk(starts[row["world"]], [*map(message_of, row["messages"])])) for row in kept]
        how = "of the rows that the filter has kept" if scale == 1 else f"of a small run with scripts, times {scale:g}"
        return Rows(talks, scale, how) if talks else None


def run_small(settings: Settings, folder: Path, stages: Sequence[str]) -> SmallRun:
    """Run what makes the data of `stages` small, in `folder`."""
    small = SmallRun(settings, folder)
    with suppress(StageFailed):  # so small a run may keep nothing
        small.of(stages)
    return small
