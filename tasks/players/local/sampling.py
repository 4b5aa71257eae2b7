"""Which token comes next: the CDF is inverted at a number that is a hash of (the turn's seed, the position). There is no generator,
so the noise does not depend on who finished first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    import torch


def uniforms(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), one per (seed, position): SplitMix64 (Steele, Lea and Flood, 2014) at step `position` of stream
    `seed`."""
    with np.errstate(over="ignore"):
        z = seeds + (positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def choose(
    logits: torch.Tensor, temperatures: np.ndarray, uniform: np.ndarray, top_p: Sequence[float] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (rows,) and their log-probabilities (rows,) from logits (rows, vocabulary).

    Temperature 0 takes the largest logit, with its log-probability at temperature 1; otherwise the first token whose
    cumulated probability exceeds `uniform` (rows,). `last` keeps rounding from choosing a token of probability zero. StageFailed where
    logits are no numbers. top_p: see `Sampling`; none is 1 for every row.
    """
    import torch

    scale = np.where(temperatures > 0, temperatures, 1.0).astype(np.float32)
    shares = torch.softmax(logits.float() / torch.from_numpy(scale)[:, None].to(logits.device), dim=-1)
    ids = shares.argmax(dim=-1, keepdim=True)
    if any(most < 1 for most in top_p):
        shares = _nucleus(shares, torch.tensor(top_p, device=shares.device)[:, None], torch.from_numpy(temperatures > 0)[:, None])
    if temperatures.any():
        cdf = shares.cumsum(dim=-1)
        point = torch.from_numpy(uniform.astype(np.float32))[:, None].to(logits.device) * cdf[:, -1:]
        last = torch.searchsorted(cdf, cdf[:, -1:].contiguous()).clamp(max=cdf.shape[1] - 1)  # of NaN it is one beyond
        drawn = torch.minimum(torch.searchsorted(cdf, point, right=True), last)
        ids = torch.where(torch.from_numpy(temperatures > 0)[:, None].to(logits.device), drawn, ids)
    logprobs = shares.gather(1, ids)[:, 0].log().cpu().numpy()
    if not np.isfinite(logprobs).all():
        raise StageFailed(
            "a model that speaks computes no numbers (NaN or infinite logits): its weights are broken, or `dtype` is too narrow for "
            "it. Take dtype: float32 or bfloat16 where it is float16; else look at the training that left it."
        )
    return ids[:, 0].cpu().numpy(), logprobs


def _nucleus(shares: torch.Tensor, top_p: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    """Rows that are sampled with only their likeliest tokens, as many as are needed for a share of top_p (Holtzman et al., 2020,
    https://arxiv.org/abs/1904.09751); the likeliest one always."""
    ordered, places = shares.sort(dim=-1, descending=True, stable=True)
    left_out = (ordered.cumsum(dim=-1) - ordered >= top_p) & (top_p < 1) & sampled.to(shares.device)
    kept = shares.masked_fill(left_out.scatter(-1, places, left_out), 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)
