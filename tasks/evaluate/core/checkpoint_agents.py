"""A checkpoint that plays in an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tasks.contract.context import Context
from tasks.evaluate.core.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.contract.agent import Agent


class Limits(Protocol):
    """What the params of a method that plays say of its checkpoints (`tasks.evaluate.pass_k.Params`)."""

    @property
    def rows(self) -> int:
        """Conversations at once."""
        ...

    @property
    def temperature(self) -> float:
        """Of the sampling."""
        ...

    @property
    def max_turn_tokens(self) -> int:
        """Tokens of a turn."""
        ...

    @property
    def max_episode_tokens(self) -> int:
        """Tokens of a conversation."""
        ...

    @property
    def dtype(self) -> str:
        """Of the weights."""
        ...

    @property
    def max_mismatch(self) -> float | None:
        """How far a server's log-probabilities may be from the checkpoint's, in nats; None: as dtype allows."""
        ...


def checkpoint_agent(folder: Path, unit: tuple[str, str], world: str, params: Limits, ctx: Context) -> tuple[Agent, Watch]:
    """A checkpoint that plays, an adapter on its base; loaded anew for each unit, so that units do not depend on each other; and who
    sees whether a server plays it. unit: (set, model)."""
    from tasks.checkpoints import adapters, agreement

    which, model = unit
    loaded, tokenizer = adapters.load(folder, ctx.artifacts, ctx.device, params.dtype)
    base = adapters.base_of(folder)
    adapters.lend(ctx.human(world), loaded, base.weights if base else "")
    highest = agreement.highest_mean(params.max_mismatch, params.dtype)
    watch = Watch(loaded, params.temperature, highest, tokenizer.bos_token_id, f"evaluate: {model} in {world} ({which})")
    agent = ctx.agent(
        world,
        name=model,
        checkpoint=(loaded, tokenizer),
        rows=params.rows,
        temperature=params.temperature,
        max_turn_tokens=params.max_turn_tokens,
        max_episode_tokens=params.max_episode_tokens,
        compare=watch.turn,
    )
    return agent, watch
