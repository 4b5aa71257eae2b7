"""`rl.loop.adapter`: an adapter is reinforced, its base is the reference, and one base is in memory for all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.checkpoints import adapters, folders
from tasks.checkpoints.adapter_params import AdapterParams
from tasks.contract.client import Request
from tasks.contract.params import BadInput
from tasks.merge import Inputs as MergeInputs
from tasks.merge.core.plan import make_plan
from tasks.players.local.client import LocalClient
from tasks.rl import Inputs, Loop, check
from tasks.rl.core.loop import Training, run
from tasks.rl.grpo import Params
from tests.rl.micro import LOOP, SHORT, Brief, context, digest, frozen, killed_at
from tests.rl.test_hooks import PLAIN, Anchored
from tests.rollout import tiny

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.rl.core.batch import Batch

SFT = "5" * 32 + ".dir"
LORA = AdapterParams(kind="lora", r=2, alpha=4.0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return frozen(tmp_path_factory.mktemp("rl"))


@pytest.fixture(scope="module")
def artifacts(inputs: Inputs) -> dict[str, Path]:
    return {SFT: inputs.sft}


def wearing(loop: Loop, adapter: AdapterParams = LORA) -> Loop:
    return loop.model_copy(update={"adapter": adapter})


def adapter_of(inputs: Inputs, folder: Path, artifacts: dict[str, Path], adapter: AdapterParams = LORA) -> Path:
    """An artifact with an adapter whose changes are random, as an sft would leave it."""
    import torch

    from tasks.checkpoints.starting import begin

    torch.manual_seed(3)
    start = begin(inputs.sft / "model", adapter, artifacts)
    worn = start.wear(start.model)
    with torch.no_grad():
        for name, weight in worn.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    start.keep(worn, folder / "model", folder / "adapter")
    return folder


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_is_reinforced_alone_and_found_again_after_a_kill(
    inputs: Inputs, artifacts: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Conversations are sampled with it on; its base stays as it was; what is left is the adapter."""
    train = partial(run, inputs, wearing(LOOP, LORA.model_copy(update={"kind": kind})), Brief(params=Params()))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    figures = train(context(whole, artifacts=artifacts))
    assert figures["best_step"] == 4 and figures["tokens_trained"] > 0 and figures["trained_parameters"] < figures["parameters"] / 2
    made = whole / "out" / "model"
    assert adapters.is_adapter(made) and not (whole / "out" / "adapter").exists()
    worn, _ = adapters.load(made, artifacts)
    start = folders.load(inputs.sft / "model")[0].state_dict()
    assert any(bool(value.any()) for name, value in worn.named_parameters() if "lora_B" in name)
    assert all(value.equal(start[name]) for name, value in worn.unload().state_dict().items())
    with pytest.raises(KeyboardInterrupt):
        train(context(cut, log=killed_at(3), artifacts=artifacts))
    assert train(context(cut, artifacts=artifacts)) == figures and digest(cut / "out") == digest(whole / "out")


def test_a_merged_one_is_whole_and_the_adapter_lies_beside_it(inputs: Inputs, artifacts: dict[str, Path], tmp_path: Path) -> None:
    params = wearing(SHORT, LORA.model_copy(update={"save": "full", "targets": ["q_proj"]}))
    run(inputs, params, Brief(params=Params()), context(tmp_path, artifacts=artifacts))
    start, best = (folders.load(folder)[0].state_dict() for folder in (inputs.sft / "model", tmp_path / "out" / "model"))
    moved = {name for name in start if not start[name].equal(best[name])}
    assert moved and all("q_proj" in name for name in moved)
    assert adapters.is_adapter(tmp_path / "out" / "adapter") and not adapters.is_adapter(tmp_path / "out" / "model")


@pytest.mark.parametrize("continued", [False, True])
def test_the_reference_is_the_start_on_the_same_base(
    inputs: Inputs, artifacts: dict[str, Path], tmp_path: Path, continued: bool
) -> None:
    """No second model is loaded, and the reference says what a second one of the start says, also where the start is an adapter itself."""
    if continued:
        inputs = replace(inputs, sft=adapter_of(inputs, tmp_path / "sft", artifacts))
    start, _ = adapters.load_whole(inputs.sft / "model", artifacts)
    seen: list[Tensor] = []

    class Looking(Anchored):
        def advantages(self, batch: Batch) -> Tensor:
            seen.append(training.models.scored(start, replace(batch, ref_logp=None), None).logp - batch.ref_logp)
            return super().advantages(batch)

    hooks = Looking(params=PLAIN, reference=True, kl=1.0)
    params = wearing(SHORT.model_copy(update={"steps": 10, "min_trained": 0.0, "lr": 1e-3}))
    training = Training(inputs, params, hooks, context(tmp_path, artifacts=artifacts))
    training.start()
    while len(seen) < 2:  # a step in which no group trains asks for no advantages
        assert training.record.step < 10
        training.step()
    assert training.models.reference is None
    assert all(float(one.detach().abs().max()) < 1e-4 for one in seen)
    policy = training.models.policies[0].module
    assert adapters.active_adapter(policy) == adapters.ADAPTER
    trains = {name for name, value in policy.named_parameters() if value.requires_grad}
    assert trains and all(f".{adapters.ADAPTER}." in name for name in trains)


def test_the_reference_off_equals_a_second_model_in_what_is_learnt(
    inputs: Inputs, artifacts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same training against a second model of the start: the same curve, and the same adapter up to rounding."""
    hooks, params = Anchored(params=PLAIN, reference=True, kl=1.0), wearing(SHORT)
    run(inputs, params, hooks, context(tmp_path / "one", artifacts=artifacts))
    two = replace(inputs, others={"reference": inputs.sft})
    run(two, params, hooks, context(tmp_path / "two", artifacts=artifacts))
    from safetensors.torch import load_file

    one, other = (load_file(str(tmp_path / name / "out" / "model" / adapters.WEIGHTS)) for name in ("one", "two"))
    assert one.keys() == other.keys() and all(one[name].allclose(other[name], atol=1e-5) for name in one)


def test_an_adapter_of_sft_is_reinforced_further(inputs: Inputs, artifacts: dict[str, Path], tmp_path: Path) -> None:
    """Its base stays the base; the first validation plays the adapter as sft left it."""
    sft = adapter_of(inputs, tmp_path / "sft", artifacts)
    run(replace(inputs, sft=sft), wearing(SHORT), Brief(params=Params()), context(tmp_path, artifacts=artifacts))
    assert adapters.base_of(tmp_path / "out" / "model") == adapters.base_of(sft / "model")
    first = tmp_path / "scratch" / "best" / "0" / "model" / adapters.WEIGHTS
    assert first.read_bytes() == (sft / "model" / adapters.WEIGHTS).read_bytes()
    assert first.read_bytes() != (tmp_path / "out" / "model" / adapters.WEIGHTS).read_bytes()


def test_4_bits_cannot_be_sampled_from() -> None:
    with pytest.raises(BadInput, match=r"adapter.kind: qlora: conversations are sampled"):
        check(wearing(LOOP, AdapterParams(kind="qlora")))


def test_the_adapters_of_a_road_are_merged(inputs: Inputs, artifacts: dict[str, Path], tmp_path: Path) -> None:
    """sft leaves an adapter, two specialists go on from it: the merge's base is what sft plays, its experts what they play. By hand: the
    mean of the specialists' weights, since a soup of both with weights of a half is that. Of another base: refused, both named."""
    from tasks.merge.core.wholes import mergeable
    from tasks.merge.linear import Params as Linear
    from tasks.merge.linear import run as soup

    sft = adapter_of(inputs, tmp_path / "sft", artifacts)
    experts = {}
    for name in ("rl_a", "rl_b"):
        hooks, at = Brief(params=Params()), replace(context(tmp_path / name, artifacts=artifacts), seed=len(experts))
        run(replace(inputs, sft=sft), wearing(SHORT.model_copy(update={"min_trained": 0.0})), hooks, at)
        experts[name] = tmp_path / name / "out" / "model"
    given = mergeable(sft / "model", experts, artifacts, tmp_path)
    soup(MergeInputs(**given), Linear(weights={"rl_a": 0.5, "rl_b": 0.5}), context(tmp_path / "merged"))
    made = folders.load(tmp_path / "merged" / "out" / "model")[0].state_dict()
    one, other = (adapters.load_whole(folder, artifacts)[0].state_dict() for folder in experts.values())
    assert any(not one[name].equal(other[name]) for name in one)
    assert all(made[name].allclose((one[name] + other[name]) / 2, atol=1e-5) for name in made)
    plain = mergeable(inputs.sft / "model", experts, artifacts, tmp_path / "plain")  # the base itself: they go as they are
    assert plain == {"base": inputs.sft / "model", "experts": experts} and not (tmp_path / "plain").exists()
    make_plan(**plain)
    other_base = tmp_path / "other"
    tiny.saved(other_base, layers=1, seed=9)
    mine, theirs = (adapters.weights_of(folder) for folder in (inputs.sft / "model", other_base))
    with pytest.raises(BadInput, match=f"rl_a: an adapter of another base: .*weights {mine}, .*weights {theirs}"):
        mergeable(other_base, experts, artifacts, tmp_path)
    with pytest.raises(BadInput, match=f"rl_a: an adapter of another base: .*weights {mine}, .*weights {theirs}"):
        make_plan(other_base, experts)


def test_a_simulated_human_speaks_with_the_base_under_the_adapter(inputs: Inputs, artifacts: dict[str, Path], tmp_path: Path) -> None:
    """It says what the same checkpoint says that is loaded on its own, token by token, and nothing is loaded for it; a human of another
    checkpoint keeps its own."""
    asked = [
        Request([{"role": "user", "content": "Hello, please cancel"}], seed=seed, temperature=1.0, max_tokens=12) for seed in range(6)
    ]
    sft = adapter_of(inputs, tmp_path / "sft", artifacts)
    worn, _ = adapters.load(sft / "model", artifacts)
    base = adapters.base_of(sft / "model")
    assert base is not None
    alone, lent = (LocalClient(inputs.sft / "model", "it") for _ in range(2))
    adapters.lend(lent, worn, base.weights)
    assert lent._loaded is not None
    embeddings = worn.get_input_embeddings().weight
    assert lent._loaded[0]._stack.weights["model.embed_tokens.weight"].data_ptr() == embeddings.data_ptr()  # type: ignore[attr-defined]
    with_it = LocalClient(sft / "model", "it", artifacts=artifacts).complete(asked)
    assert lent.complete(asked) == alone.complete(asked) != with_it
    adapters.lend(lent, worn, "")
    assert lent._loaded is None
    other = LocalClient(tiny.saved(tmp_path / "other", layers=1, seed=9), "other")
    adapters.lend(other, worn, base.weights)
    assert other._loaded is None
