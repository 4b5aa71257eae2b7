"""What is served: engines, and the names by which requests ask them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tasks.players.local.generation import Generated, Sampling
from tasks.serving.endpoint.chat import Chat
from tasks.serving.endpoint.engine_thread import Watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Engine(Protocol):
    """Whoever produces the tokens of several turns at a time: `EngineThread` in this process, or a server."""

    @property
    def most(self) -> int:
        """Tokens of the longest conversation."""

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""

    def ask(self, ids: Sequence[int], sampling: Sampling, watch: Watch | None = None) -> Future[Generated]:
        """A turn after `ids`, as `EngineThread.ask` gives it."""

    def load(self, name: str, folder: Path) -> Future[None]:
        """Serve an adapter too, by a name that was never used before. BadInput or OSError, in the future, for none of this base."""

    def unload(self, name: str) -> Future[None]:
        """Serve it no longer. RuntimeError, in the future, while it is in use."""

    def end(self) -> None:
        """Stop; what is under way is not answered."""


@dataclass
class Served:
    """An engine, and what is asked of it by name. name: of the base. chat: of every name but those in `chats`, which were evaluated
    each in its own way; None where there is none, and no_chat says why. adapters: public name -> its name in the engine, new at each
    load, so that no cache outlives its weights."""

    name: str
    thread: Engine
    tokenizer: PreTrainedTokenizerBase | None = None
    adapters: dict[str, str] = field(default_factory=dict)
    loads: int = 0
    chat: Chat | None = None
    no_chat: str = ""
    chats: dict[str, Chat] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """That requests may give."""
        return [self.name, *self.adapters]

    def chat_of(self, model: str) -> Chat | None:
        """How one of the names chats."""
        return self.chats.get(model, self.chat)

    def load(self, name: str, folder: Path) -> None:
        """Serve an adapter too, once it is read. BadInput or OSError for what is none of this base."""
        self.loads += 1
        inside = f"{name}#{self.loads}"
        self.thread.load(inside, folder).result()
        self.adapters[name] = inside

    def unload(self, name: str) -> None:
        """Serve it no longer. RuntimeError while it is in use."""
        self.thread.unload(self.adapters[name]).result()
        del self.adapters[name]
        self.chats.pop(name, None)


def find(engines: Sequence[Served], model: str) -> Served | None:
    """The engine that answers to a name."""
    return next((one for one in engines if model in one.names), None)


def unknown(engines: Sequence[Served], model: str) -> str:
    """What a request is told that asks for a model that is not served."""
    return f"The model `{model}` does not exist. There are: {', '.join(name for one in engines for name in one.names)}."
