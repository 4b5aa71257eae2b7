"""Memory of a training, in bytes: weights, gradients, states of the optimiser, activations, logits.

What a layer keeps for its backward pass was counted operation by operation in transformers' Llama and Qwen3 (attention: sdpa) and in
PEFT's LoRA; a test compares the sums with what torch holds. The kinds of state: Rajbhandari and others, https://arxiv.org/abs/1910.02054,
section 3; activations and their recomputation: Korthikanti and others, https://arxiv.org/abs/2205.05198, section 4 (for GPT's layers).
w: width, q: queries, k: keys, f: inner width of the MLP, v: vocabulary, t: tokens, n: tokens with logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from flows.forecast.shape import Shape

NF4 = 0.516
"""Bytes a weight in 4 bits with doubly quantised constants: https://arxiv.org/abs/2305.14314, section 3 (4.127 bits)."""
STATES = {"adamw": 8, "adamw_8bit": 2, "muon": 8}
"""Bytes of AdamW's two moments: float32 (https://arxiv.org/abs/1711.05101), or 8 bits (https://arxiv.org/abs/2110.02861)."""
MOMENTUM = 4
"""Bytes of Muon's one moment of a matrix (`tasks.sft.core.optimizer`)."""
LOGITS = 3
"""Times that the logits are there in float32: they, their log-softmax, its gradient."""


@dataclass(frozen=True)
class Adapter:
    """Low-rank changes of linear maps. targets: ends of their names, () for all. whole: parameters that train beside it."""

    r: int
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    four_bits: bool = False
    tables: int = 0

    def linears(self, shape: Shape) -> dict[str, tuple[int, int]]:
        """Those of a layer's linear maps that it changes: name -> (in, out)."""
        return {name: sizes for name, sizes in shape.linears.items() if not self.targets or name.endswith(self.targets)}

    def parameters(self, shape: Shape) -> int:
        """Numbers of A (r, in) and B (out, r) of all layers, and of what trains whole beside them."""
        return shape.layers * self.r * sum(map(sum, self.linears(shape).values())) + self.tables * shape.table


@dataclass(frozen=True)
class Training:
    """adapter: None when all weights train. bfloat16: computed in it (autocast); what trains stays float32. mask: bytes a number of a
    dropout's mask (float on a CPU, bool on a GPU). packed: where several rows lie in one sequence, the tokens that they
    share and those of a whole row."""

    shape: Shape
    adapter: Adapter | None = None
    bfloat16: bool = False
    checkpointing: bool = False
    optimizer: str = "adamw"
    mask: int = 4
    packed: tuple[int, int] | None = None

    @property
    def trained(self) -> int:
        """Parameters that train."""
        return self.adapter.parameters(self.shape) if self.adapter else self.shape.parameters

    @property
    def _number(self) -> int:
        """Bytes of a number that passes between linear maps."""
        return 2 if self.bfloat16 else 4

    def weights(self) -> float:
        """What trains in float32; frozen weights in bfloat16 where they are stored so, and in four bits where they are quantised."""
        shape = self.shape
        if self.adapter is None:
            return 4 * shape.parameters
        frozen = self._frozen()
        if self.adapter.four_bits:
            return NF4 * shape.matrices + frozen * (shape.parameters - shape.matrices) + 4 * self.trained
        return frozen * shape.parameters + 4 * self.trained

    def _frozen(self) -> int:
        return 2 if self.bfloat16 and self.shape.stored == 2 else 4

    def loading(self, gpu: bool) -> float:
        """While the checkpoint is read in float32: in the host's memory beside what the file holds of it; a GPU gets it from there as
        it is, or in four bits."""
        if gpu and self.adapter and self.adapter.four_bits:
            return self.weights()
        return (4 + (0 if gpu else self.shape.stored)) * self.shape.parameters

    def states(self) -> float:
        """Of the optimiser."""
        if self.optimizer != "muon":
            return STATES[self.optimizer] * self.trained
        matrices = self.trained if self.adapter else self.shape.matrices
        return MOMENTUM * matrices + STATES["muon"] * (self.trained - matrices)

    def stepping(self) -> float:
        """Beside gradients and states while the optimiser steps: Muon holds every matrix's update, and three times the matrices of the
        commonest shape, which it turns together."""
        if self.optimizer != "muon":
            return 0
        sizes: dict[tuple[int, ...], int] = {}
        for one, other in self.shape.linears.values():
            for shape in ((self.adapter.r, one), (other, self.adapter.r)) if self.adapter else ((other, one),):
                sizes[shape] = sizes.get(shape, 0) + self.shape.layers * shape[0] * shape[1]
        return 4 * (sum(sizes.values()) + 3 * max(sizes.values()))

    def layer(self) -> float:
        """Kept of one token in one layer: inputs of norms (float32), of linear maps, of attention and of the gated MLP."""
        shape, number = self.shape, self._number
        statistics = 4 * (2 + shape.heads + (shape.heads + shape.kv_heads if shape.normed_heads else 0))
        between = number * (2 * shape.queries + 2 * shape.keys + 3 * shape.inner)  # q, k, v, attended; gate, its silu, up
        heads = 4 * (shape.queries + shape.keys) if shape.normed_heads else 0
        if self.adapter is None:
            into = number * (5 * shape.width if self.bfloat16 else 2 * shape.width) + number * shape.inner
            return statistics + 16 * shape.width + 2 * heads + between + into
        linears = self.adapter.linears(shape)
        return statistics + 8 * shape.width + heads + between + self._into_adapters(linears) + number * self.adapter.r * len(linears)

    def _into_adapters(self, linears: dict[str, tuple[int, int]]) -> float:
        """What A reads: a copy for each map in bfloat16 or with dropout, else what the maps share (the attended values are there)."""
        adapter, every = self.adapter, sum(one for one, _ in linears.values())
        if adapter is not None and adapter.dropout:
            return (self._number + self.mask) * every
        if self.bfloat16:
            return 2 * every
        first, gates = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
        width, inner = self.shape.width, self.shape.inner
        return 4 * (width * bool(first & {*linears}) + width * bool(gates & {*linears}) + inner * ("down_proj" in linears))

    def activations(self, tokens: int) -> float:
        """Kept of `tokens` tokens from a forward pass for its backward pass."""
        shape = self.shape
        casts = 2 * (shape.matrices + shape.table if self.adapter is None else self.trained) if self.bfloat16 else 0
        ends = (12 if self.adapter is None else 4) * shape.width
        alone = tokens * self.layer() + (self._apart(tokens) if self.packed else 0.0)
        if not self.checkpointing:
            return shape.layers * alone + tokens * ends + casts
        stream = self._number if self.adapter and self._frozen() == 2 else 4
        return tokens * (shape.layers * stream * shape.width + ends) + alone + casts / shape.layers

    def _apart(self, tokens: int) -> float:
        """Kept in one layer of a pack's attention, row by row: its mask in the numbers of the scores, and for each head the keys and
        values of what it sees (`tasks.training.packs`)."""
        shared, whole = self.packed or (0, 1)
        rows = max(1.0, (tokens - shared) / max(1, whole - shared))
        return self._number * rows * whole * (whole - shared + 2 * self.shape.queries)

    def passing(self, tokens: int) -> float:
        """Gradients of activations while the last layer goes backward: of the MLP's two halves and of the stream."""
        return tokens * self._number * (2 * self.shape.inner + self.shape.width)

    def logits(self, scored: int) -> float:
        """Of n scored tokens, at the most."""
        return 4.0 * LOGITS * scored * self.shape.vocabulary

    def peak(self, tokens: int, scored: int, several: bool) -> dict[str, float]:
        """The parts at the moment when most is held. tokens, scored: of one pass. several: passes a step, so that the gradients of the
        ones before are there; of a single pass the gradients take the place of activations."""
        shape = self.shape
        kept, all_gradients = self.activations(tokens), 4.0 * self.trained
        head = 4.0 * shape.table if self.adapter is None else 0.0
        begun = all_gradients if several else head
        moments = [
            {"activations": kept, "logits": self.logits(scored), "gradients": begun},
            {"activations": kept + self.passing(tokens), "logits": 0.0, "gradients": begun},
            {"activations": self.stepping(), "logits": 0.0, "gradients": all_gradients},
        ]
        most = max(moments, key=lambda parts: sum(parts.values()))
        return {"weights": self.weights(), "optimizer": self.states(), **most}
