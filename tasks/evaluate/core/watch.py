"""Whether a server plays the checkpoint that is measured: its first tokens' log-probabilities against the checkpoint's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import agreement

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.players.local.generation import Generated

ENOUGH = 128
"""Tokens that are compared; then it is judged, and what follows costs nothing. The mean of fewer would be noise in half precision."""
ADVICE = "No trial of it was kept. If it is meant (the server's dtype is another), say its dtype in dtype, or raise max_mismatch."


class Watch:
    """Compares until ENOUGH tokens are; `turn` is `CheckpointAgent`'s `compare`, `judge` is called once more at the end.

    model: the checkpoint, in eval mode. temperature: of the sampling (0: log-probabilities are those at 1). highest: mean difference of
    a token, in nats, above which it is another model. bos: the tokenizer's first token, if it has one. where: for the message."""

    def __init__(self, model: Any, temperature: float, highest: float, bos: int | None, where: str) -> None:
        self._model, self._temperature, self._highest, self._bos, self._where = model, temperature or 1.0, highest, bos, where
        self._turns: list[tuple[Sequence[int], Sequence[int]]] = []
        self._played: list[float] = []

    def turn(self, read: Sequence[int], made: Generated) -> None:
        """A turn. read: all ids before it. Raises StageFailed as `judge` does."""
        if len(self._played) < ENOUGH:
            self._turns.append((list(read), list(made.ids)))
            self._played += made.logprobs
            if len(self._played) >= ENOUGH:
                self.judge()

    def judge(self) -> None:
        """StageFailed when another model, or another prompt, has played; nothing to do where it was judged, or nothing was compared."""
        import torch

        if not self._turns:
            return
        found, played = agreement.Mismatch(), torch.tensor(self._played, device=self._model.device)
        with torch.no_grad():
            found.add(self._scored(self._temperature, None) - played, self._highest)
        agreement.check(
            found, self._highest, self._model, self._scored, played, self._temperature, self._bos, self._where, "checkpoint", ADVICE
        )
        self._turns.clear()

    def _scored(self, temperature: float, first: int | None) -> Tensor:
        """Log-probabilities (n,) of all turns' ids at a temperature; first: an id before each prompt."""
        import torch

        before, found = [] if first is None else [first], []
        for read, made in self._turns:
            ids = torch.tensor([[*before, *read, *made]], device=self._model.device)
            logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=len(made) + 1).logits[0, -len(made) - 1 : -1]
            full = torch.log_softmax(logits.float() / temperature, dim=-1)
            found.append(full.gather(1, ids[0, -len(made) :, None])[:, 0])
        return torch.cat(found)
