"""What a step of room evaluate measured of models, for a paper's `measure`: `scores.parquet`, a row a model and problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "scores.parquet"


@dataclass(frozen=True)
class Scores:
    """rows: of one model, in the order of the file. figures: what the step said of itself, such as counts of what was left out."""

    rows: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Any]

    def values(self, column: str, **having: Any) -> list[float]:
        """A column of the rows whose other columns have these values, such as part="old". ValueError when there is no such row."""
        found = [float(row[column]) for row in self.rows if all(row[name] == value for name, value in having.items())]
        if not found:
            asked = ", ".join(f"{name} = {value!r}" for name, value in having.items())
            raise ValueError(f"no row was measured with {asked or 'anything'}")
        return found

    def mean(self, column: str, **having: Any) -> float:
        """The mean of `values`."""
        found = self.values(column, **having)
        return sum(found) / len(found)


def read(folder: Path, model: str, figures: Mapping[str, Any]) -> Scores:
    """The scores of one model in a step's artifact; "" where it holds one alone. ValueError when there is none, or one cannot tell."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / FILE).to_pylist()
    models = sorted({row["model"] for row in rows})
    if model not in models and not (model == "" and len(models) == 1):
        raise ValueError(f"the step measured the models {', '.join(models) or 'none'}; the arm's is {model!r}")
    return Scores([row for row in rows if row["model"] == (model or models[0])], figures)
