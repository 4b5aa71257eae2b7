"""The rows of a step as tensors: what the hooks read.

Legend: n rows, p prompt tokens, t completion tokens, k turns, each of the longest row. The completion of a row is everything after its
first prompt: the model's tokens and what it read between them. A row is a conversation, whatever its chat format: where each turn
read a whole prompt (`by turn`), the completion holds these prompts too, and each turn is a sequence of its own when it is scored
(`core/scoring.py`). So a conversation has one reward, one advantage and one share in the loss, however its tokens are passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from tasks.contract.params import StageFailed
from tasks.contract.trajectory import Trajectory

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One conversation as training sees it.

    turns: of each turn the ids that the model read since the last one (prompt_ids), those that it produced (ids) and their
    log-probabilities when they were (logprobs); never rendered again. A turn with `first` true read a whole prompt, and nothing of the
    turns before it. turn_rewards: one a turn. trains: False leaves its tokens out. group, policy, episode: as in `hooks.Played`. talk:
    None for a stored row.
    """

    turns: Sequence[Mapping[str, Sequence[Any]]]
    reward: float
    turn_rewards: Sequence[float] = ()
    group: int = 0
    policy: int = 0
    episode: int = -1
    trains: bool = True
    talk: Trajectory | None = None

    def columns(self, pad: int) -> tuple[list[int], list[int], list[float], list[int], list[int]]:
        """(prompt ids, completion ids, log-probabilities, turns, sequences): the number of the turn that produced a token, -1 for what
        was read, and that of the sequence in which it stands, from 1.

        A conversation without any turn becomes one padding token that nobody trains.
        """
        if not self.turns:
            return [pad], [pad], [0.0], [-1], [1]
        ids: list[int] = []
        logps: list[float] = []
        turns: list[int] = []
        sequences: list[int] = []
        sequence = 1
        for number, turn in enumerate(self.turns):
            read = list(turn["prompt_ids"]) if number else []
            sequence += bool(number and turn.get("first"))
            ids += [*read, *turn["ids"]]
            logps += [0.0] * len(read) + list(turn["logprobs"])
            turns += [-1] * len(read) + [number] * len(turn["ids"])
            sequences += [sequence] * (len(read) + len(turn["ids"]))
        return list(self.turns[0]["prompt_ids"]), ids or [pad], logps or [0.0], turns or [-1], sequences or [1]

    def after(self, token: int) -> Row:
        """The same with a token before every whole prompt."""
        begun = [
            {**turn, "prompt_ids": [token, *turn["prompt_ids"]]} if not number or turn.get("first") else turn
            for number, turn in enumerate(self.turns)
        ]
        return replace(self, turns=begun)


@dataclass(frozen=True)
class Scored:
    """What the present models say of a slice's trained tokens, 0 elsewhere. logp: (b, t) log-probabilities at the sampling's
    temperature, with gradient. entropy: (b, t) in nats; with gradient if the method wants it. values: (b, t) the critic's value of the
    state before each token, with gradient; None without a critic."""

    logp: Tensor
    entropy: Tensor
    values: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Rows in order.

    step, steps: this one, from 0, and how many there will be. lines: figures of the steps before it (`curves.csv`).
    rows:         what the tensors were made of.
    ids:          (n, p + t) prompts padded left, completions padded right.
    sequences:    (n, p + t) 0 where no token is, else the number, from 1, of the sequence of its row in which it stands: a token sees
                  those before it in its own.
    mask:         (n, t) 1 where the token is the model's own and trains.
    turns:        (n, t) number of the turn that produced the token, -1 where none did.
    engine_logp:  (n, t) as recorded when the token was sampled.
    old_logp:     (n, t) from which a ratio starts: engine_logp, or, if it is corrected, the trainer's own before the first update.
    correction:   (n, t) weight of each token's loss where it is corrected for the engine (`core/mismatch.py`), else 1.
    played:       (n,) 1 where the row was played in this step, 0 where it was stored.
    groups, policies, episodes: (n,). rewards: (n,). turn_rewards: (n, k), 0 after a row's last turn.
    ref_logp:     (n, t) of the reference, if the method wants one. values: (n, t) the critic's before the first update.
    advantages:   (n, 1) or (n, t). returns: (n, t) what the critic learns.
    whole:        False for a slice that holds some of a conversation's turns.
    divisor:      by what `mean` divides: of the whole optimiser step, so that slices add up.
    """

    step: int
    steps: int
    lines: Sequence[Mapping[str, float]]
    rows: Sequence[Row]
    ids: Tensor
    sequences: Tensor
    mask: Tensor
    turns: Tensor
    engine_logp: Tensor
    old_logp: Tensor
    played: Tensor
    groups: Tensor
    policies: Tensor
    episodes: Tensor
    rewards: Tensor
    turn_rewards: Tensor
    ref_logp: Tensor | None = None
    values: Tensor | None = None
    advantages: Tensor = field(default_factory=lambda: _scalar(0.0))
    returns: Tensor | None = None
    divisor: Tensor = field(default_factory=lambda: _scalar(1.0))
    correction: Tensor = field(default_factory=lambda: _scalar(1.0))
    whole: bool = True

    def take(self, chosen: Tensor) -> Batch:
        """The rows with these numbers (m,)."""
        part: dict[str, Any] = {"rows": [self.rows[index] for index in chosen.tolist()]}
        for one in fields(self):
            value = getattr(self, one.name)
            if hasattr(value, "dim") and value.dim():
                part[one.name] = value[chosen.to(value.device)]
        return replace(self, **part)

    def to(self, device: str) -> Batch:
        """Every tensor on that device."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if hasattr(value, "dim")})

    def mean(self, tokens: Tensor) -> Tensor:
        """These rows' part of the mean of `tokens` (b, t) over the optimiser step's trained tokens, or what the method divides by."""
        if self.divisor.dim():
            return (tokens * self.mask / self.divisor).sum()
        return (tokens * self.mask).sum() / self.divisor

    def per_row(self, tokens: Tensor) -> Tensor:
        """The sum of `tokens` (b, t) over each row's trained tokens (b,): log-probabilities of whole conversations. StageFailed for a
        slice in which they are not whole."""
        if not self.whole:
            raise StageFailed(
                "rl: the method sums over whole conversations, and this slice holds some of the turns of one (pass_tokens). A method "
                "that does so says whole_rows (or whole_groups) in its `Hooks`."
            )
        return (tokens * self.mask).sum(dim=1)

    def at_turns(self, values: Tensor) -> Tensor:
        """Values (n, k), one a turn, at each of the turn's tokens (n, t); 0 where no turn is."""
        return values.gather(1, self.turns.clamp(min=0)) * (self.turns >= 0)

    def at_last_tokens(self, values: Tensor) -> Tensor:
        """Values (n, k), one a turn, at the last token of each turn alone (n, t), for a return over tokens."""
        import torch

        after = torch.cat([self.turns[:, 1:], torch.full_like(self.turns[:, :1], -1)], dim=1)
        return self.at_turns(values) * (after != self.turns)


def per_row(batch: Batch) -> Tensor:
    """A divisor (n, 1) with which each row counts the same, whatever its length: DeepSeekMath's mean of means."""
    trained = batch.mask.sum(dim=1, keepdim=True)
    return trained.clamp(min=1) * (trained > 0).sum().clamp(min=1)


def collate(rows: Sequence[Row], pad: int, step: int, steps: int, lines: Sequence[Mapping[str, float]]) -> Batch:
    """Rows as tensors on the CPU; all but the tokens of rows that train are masked."""
    import torch

    prompts, completions, logps, turns, sequences = zip(*(row.columns(pad) for row in rows), strict=True)
    before, after = max(map(len, prompts)), max(map(len, completions))
    deepest = max(1, *(len(row.turns) for row in rows))

    def right(lists: Sequence[Sequence[float]], fill: float, width: int, kind: Any = torch.long) -> Tensor:
        return torch.tensor([[*one, *[fill] * (width - len(one))] for one in lists], dtype=kind)

    left = torch.tensor([[pad] * (before - len(one)) + one for one in prompts])
    there = torch.tensor([[0] * (before - len(one)) + [1] * len(one) for one in prompts])
    numbers = right(turns, -1, after)
    trains = torch.tensor([row.trains for row in rows])
    recorded = right(logps, 0.0, after, torch.float32)
    return Batch(
        step=step,
        steps=steps,
        lines=lines,
        rows=rows,
        ids=torch.cat([left, right(completions, pad, after)], dim=1),
        sequences=torch.cat([there, right(sequences, 0, after)], dim=1),
        mask=(numbers >= 0).long() * trains[:, None],
        turns=numbers,
        engine_logp=recorded,
        old_logp=recorded,
        played=torch.tensor([int(row.talk is not None) for row in rows]),
        groups=torch.tensor([row.group for row in rows]),
        policies=torch.tensor([row.policy for row in rows]),
        episodes=torch.tensor([row.episode for row in rows]),
        rewards=torch.tensor([row.reward for row in rows], dtype=torch.float32),
        turn_rewards=right([list(row.turn_rewards) for row in rows], 0.0, deepest, torch.float32),
    )


def named(batch: Batch) -> str:
    """The conversations of a batch that train, for a message: those of a problem together."""
    talks: dict[str, list[str]] = {}
    for row, mask in zip(batch.rows, batch.mask, strict=True):
        if bool(mask.any()):
            name, trial = (row.talk.problem.problem_id, str(row.talk.trial)) if row.talk else ("stored rows", f"of group {row.group}")
            talks.setdefault(name, []).append(trial)
    return "Its conversations: " + "; ".join(f"{name}, trials {', '.join(trials)}" for name, trials in talks.items()) + "."


def units(groups: Tensor, whole: bool) -> list[Tensor]:
    """The numbers of the rows that stay together: single rows, or (whole) the rows of a group."""
    import torch

    if not whole:
        return list(torch.arange(len(groups)).split(1))
    return [torch.nonzero(groups == group)[:, 0] for group in groups.unique()]


def parts(units: Sequence[Tensor], count: int) -> Iterator[list[Tensor]]:
    """Units in `count` parts of as even a size as can be, none empty."""
    for number in range(count):
        if part := list(units[number * len(units) // count : (number + 1) * len(units) // count]):
            yield part


def checked(what: str, found: Tensor, allowed: Sequence[tuple[int, ...]]) -> Tensor:
    """A method's numbers; StageFailed when they are not finite or of none of the allowed shapes."""
    wrong = "" if bool(found.isfinite().all()) else " and are not all finite"
    if wrong or tuple(found.shape) not in allowed:
        raise StageFailed(
            f"rl: the method's `{what}` have the shape {tuple(found.shape)}{wrong}. Expected: finite numbers of shape "
            f"{' or '.join(map(str, allowed))}."
        )
    return found


def _scalar(value: float) -> torch.Tensor:
    import torch

    return torch.tensor(value)
