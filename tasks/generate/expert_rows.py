"""Rows of environments as tokens: episodes that the scripted expert plays, and texts of the environments' other forms.

A part is so many rows of each split of one environment: played episodes (form `play`), by an expert that makes errors at given rates,
or one of the forms that the environment itself writes (facts told, pairs of a map in a row). In `noise`, a share of the trained words
is replaced by words of the environment at random; what ends a reply never is. Errors, noise and weights are for what is learned from:
rows of validation and test are always clean. It leaves `rows.parquet` (`schemas.TOKEN_ROW`) and `words.json`, the vocabulary of its
ids. Seeds hang on the step's seed and a part's name alone, so that steps of one seed get the same episodes for the same part.

Cost: 1,400 to 15,000 rows a second and core, 230 where the expert searches (`grid`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.contract.params import Params as Base
from tasks.contract.problem import Split
from tasks.generate import Inputs

if TYPE_CHECKING:
    import numpy as np

    from tasks.environments import Environment
    from tasks.environments.tokens import Vocabulary

TITLE = "Rows of experts in environments"
PAPER = ""
SLUG = ""
GROUND = "environments"
PLAY = "play"
"""The form of rows that are played episodes; every environment has it."""
BLOCK = 1024
"""Episodes that are played at once; ours."""
DRAWN = 100
"""Episodes played for each row that is to be left, before too few count as won; ours."""


class Part(Base):
    """Some rows of one environment."""

    environment: str = Field("maps", description="which, by the name that worlds.environments gives it")
    form: str = Field(PLAY, description="play: episodes of the expert; or a form that the environment has beside")
    families: list[str] = Field([], description="kinds of episodes; none: all")
    rows: dict[Literal["train", "validation", "test"], int] = Field(
        {"train": 200, "validation": 20, "test": 50}, description="how many rows of each split; 0 to 1,000,000"
    )
    errors: dict[str, float] = Field({}, description="errors of the expert in train rows: name -> rate in [0, 1]")
    noise: float = Field(0.0, ge=0, le=1, description="share of the trained words of train rows that are replaced at random")
    keep: Literal["all", "won"] = Field("all", description="won: the train rows are episodes that brought all that can be had")
    weight: float = Field(1.0, ge=0, le=1e6, description="of each of its train rows in a loss")


class Params(Base):
    """Which rows are left, part by part."""

    parts: dict[str, Part] = Field({"maps": Part()}, min_length=1, description="name -> rows of one environment")


@dataclass(frozen=True)
class Made:
    """A row in the ids of its environment alone: which seed's, tokens, what trains, what it brought (None: not played) and its
    turns."""

    seed: int
    ids: list[int]
    mask: list[bool]
    total: float | None
    turns: int


def check(params: Params) -> None:
    """Raise BadInput for numbers of rows that are none, for parts without a row, and for what a form that is not played cannot have."""
    for name, part in params.parts.items():
        if wrong := [split for split, count in part.rows.items() if not 0 <= count <= 1_000_000]:
            raise BadInput(f"parts.{name}.rows.{wrong[0]} = {part.rows[wrong[0]]}. Allowed: 0 to 1,000,000.")
        if not any(part.rows.values()):
            raise BadInput(f"parts.{name}.rows: no split has a row, so the part would be empty. Take it out, or give it some.")
        if part.form != PLAY and (part.errors or part.keep == "won"):
            key = "errors" if part.errors else "keep"
            raise BadInput(f"parts.{name}.{key}: only episodes that are played (form: {PLAY}) have errors and are won.")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Leave rows.parquet and words.json; returns counts of each part. BadInput for an environment, family, form or error that there is
    not, StageFailed where too few episodes are won."""
    from tasks.contract.schemas import TOKEN_ROW
    from tasks.contract.tables import Sink
    from tasks.environments import frozen, tokens

    environments = frozen.load_all(inputs.worlds)
    words = tokens.vocabulary(environments)
    figures: dict[str, dict[str, Any]] = {}
    with Sink(ctx.out / "rows.parquet", TOKEN_ROW) as sink:
        for place, (name, part) in enumerate(params.parts.items()):
            if part.environment not in environments:
                raise BadInput(
                    f"parts.{name}.environment: {part.environment!r} is not frozen.{nearest(part.environment, environments)} "
                    f"There are {', '.join(environments)}."
                )
            figures[name] = _write(sink, name, part, environments[part.environment], words, ctx)
            ctx.progress(place + 1, len(params.parts), "parts made")
    tokens.write_words(words, ctx.out)
    total = {key: sum(one[key] for one in figures.values()) for key in ("rows", "tokens", "trained_tokens")}
    return {**total, "parts": figures, "stopped": ""}


def _write(sink: Any, name: str, part: Part, environment: Environment, words: Vocabulary, ctx: Context) -> dict[str, Any]:
    """Add a part's rows; returns its counts."""
    import numpy as np

    from tasks.environments.tokens import SPECIALS

    own = np.array([*range(len(SPECIALS)), *words.ids(" ".join(environment.words))])
    found: dict[str, Any] = {"rows": 0, "tokens": 0, "trained_tokens": 0, "replaced": 0, "lost": 0}
    brought = []
    for split in get_args(Split):
        rng = np.random.default_rng(ctx.seed_for("rows", name, split))
        train = split == "train"
        for number, made in enumerate(_made(environment, name, part, split, rng, found, ctx)):
            ids, mask = np.array(made.ids), np.array(made.mask)
            if train and part.noise:
                ids, replaced = noisy(ids, mask, part.noise, len(environment.words), rng)
                found["replaced"] += replaced
            sink.add(
                {
                    "row_id": f"{name}/{split}/{number}",
                    "environment": part.environment,
                    "part": name,
                    "family": environment.family(made.seed),
                    "split": split,
                    "seed": made.seed,
                    "ids": own[ids].tolist(),
                    "mask": made.mask,
                    "weight": part.weight if train else 1.0,
                    "return": made.total,
                    "turns": made.turns,
                }
            )
            found["rows"] += 1
            found["tokens"] += len(ids)
            found["trained_tokens"] += int(mask.sum())
            brought += [made.total] if made.total is not None else []
    return {**found, "return": round(sum(brought) / len(brought), 6) if brought else None}


def noisy(ids: np.ndarray, mask: np.ndarray, share: float, words: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """ids (t,) with a share of the masked words, specials apart, replaced by others of so many `words` at random; and how many."""
    import numpy as np

    from tasks.environments.tokens import SPECIALS

    first = len(SPECIALS)
    chosen = mask & (ids >= first) & (rng.random(len(ids)) < share)
    others = first + (ids - first + rng.integers(1, words, len(ids))) % words
    return np.where(chosen, others, ids), int(chosen.sum())


def _made(
    environment: Environment, name: str, part: Part, split: Split, rng: np.random.Generator, found: dict[str, Any], ctx: Context
) -> Iterator[Made]:
    """The rows of a part in one split."""
    from tasks.environments import episodes

    count = part.rows.get(split, 0)
    if not count:
        return
    seeds = episodes.seeds(environment, split, part.families, ctx.seed, name)
    rates = part.errors if split == "train" else {}
    won, left, drawn = part.keep == "won" and split == "train", count, 0
    while left:
        if drawn >= DRAWN * count:
            raise StageFailed(
                f"generate: part {name!r}: of {drawn:,} episodes with errors {dict(rates)} {count - left:,} were won; {count:,} are "
                "wanted. Lower the rates, or ask for fewer rows."
            )
        block = episodes.first(min(BLOCK, count if won else left), seeds)
        drawn += len(block)
        for made, good in _block(environment, name, part, block, rates, won, rng):
            if not good:
                found["lost"] += 1
            elif left:
                left -= 1
                yield made


def _block(
    environment: Environment,
    name: str,
    part: Part,
    seeds: Sequence[int],
    rates: Mapping[str, float],
    won: bool,
    rng: np.random.Generator,
) -> Iterator[tuple[Made, bool]]:
    """(row, whether it may be left) of each seed."""
    from tasks.environments import episodes
    from tasks.environments.tokens import Vocabulary

    if part.form != PLAY:
        for seed, (ids, mask) in zip(seeds, _form(environment, name, part.form, seeds, rng), strict=True):
            yield Made(seed, ids, mask, None, 0), True
        return
    played = episodes.play(environment, seeds, lambda one: one.expert(rates, rng))
    good = episodes.won(environment, seeds, played.total).tolist() if won else [True] * len(seeds)
    own = Vocabulary(environment.words)
    for place, seed in enumerate(seeds):
        turns = played.turns[place]
        yield Made(seed, *own.conversation(turns), float(played.total[place]), len(turns)), good[place]


def _form(
    environment: Environment, name: str, form: str, seeds: Sequence[int], rng: np.random.Generator
) -> list[tuple[list[int], list[bool]]]:
    forms = getattr(environment, "forms", {})
    if form not in forms:
        raise BadInput(
            f"parts.{name}.form: environment {environment.name} has no form {form!r}.{nearest(form, [PLAY, *forms])} "
            f"Known: {', '.join([PLAY, *forms])}."
        )
    found: list[tuple[list[int], list[bool]]] = environment.rows(form, seeds, rng)  # type: ignore[attr-defined]
    return found
