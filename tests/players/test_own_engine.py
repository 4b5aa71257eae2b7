"""The engine `own` says what transformers says, whoever else is served, and its memory follows tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput, StageFailed
from tasks.players.local import own
from tasks.players.local.generation import Engine, Generated, Sampling
from tasks.players.local.own import attention, weights
from tasks.players.local.own.engine import OwnEngine

VOCABULARY = 97
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True},
    "llama": {
        "hidden_size": 48,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "tie_word_embeddings": True,
        "rope_parameters": LLAMA3,
    },
    "qwen2": {
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    },
    "mistral": {"num_attention_heads": 4, "num_key_value_heads": 4, "sliding_window": None},
}


def model(family: str = "llama", **more: Any) -> Any:
    """Random weights, loud enough that greedy turns do not repeat one token; a few thousand of them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "max_position_embeddings": 512,
    }
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **FAMILIES.get(family, {}), **more})).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4.0) if weight.dim() == 2 else weight.add_(torch.randn_like(weight) * 0.1)
    return made


def prompts(count: int, common: int = 40) -> list[list[int]]:
    """Prompts that begin with the same `common` ids and go on for 3 to 30 of their own."""
    begin = [(7 * at) % VOCABULARY for at in range(common)]
    return [begin + [(11 * number + 5 * at + 1) % VOCABULARY for at in range(3 + number * 7 % 28)] for number in range(count)]


def engine(of: Any, *, rows: int = 16, most: int = 300, page: int | None = 16, **more: Any) -> OwnEngine:
    stack, adapters = weights.of_model(of)
    return OwnEngine(stack, adapters, rows=rows, most=most, page=page, **more)


def sampling(seed: int = 0, temperature: float = 0.0, tokens: int = 12, stop: Sequence[int] = (), adapter: str = "") -> Sampling:
    return Sampling(seed, temperature, tokens, tuple(stop), adapter)


def turns(given: Engine) -> dict[str, Generated]:
    """All turns that are owed."""
    made: dict[str, Generated] = {}
    while found := given.poll():
        made |= {turn.conversation: turn for turn in found}
    return made


def generated(of: Any, given: Sequence[Sequence[int]], how: Sequence[Sampling], **sizes: Any) -> list[Generated]:
    one = engine(of, **sizes)
    for number, (ids, wish) in enumerate(zip(given, how, strict=True)):
        one.submit(str(number), ids, wish)
    made = turns(one)
    return [made[str(number)] for number in range(len(given))]


def logprobs_of(of: Any, prompt: Sequence[int], ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """Of one forward pass of transformers over the whole sequence."""
    import torch

    with torch.no_grad():
        logits = of(torch.tensor([[*prompt, *ids]])).logits[0].float() / temperature
    found = torch.log_softmax(logits, -1)
    return [float(found[len(prompt) + at - 1, token]) for at, token in enumerate(ids)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("page", [16, 301])
def test_greedy_tokens_are_those_of_transformers(tmp_path: Path, family: str, page: int) -> None:
    """From the saved folder, token by token against `generate`; log-probabilities against one full pass, to 1e-5."""
    import torch

    of = model(family)
    of.save_pretrained(str(tmp_path))
    given = prompts(7)
    one = OwnEngine(weights.of_folder(tmp_path, "cpu"), {}, rows=8, most=300, page=page)
    for number, ids in enumerate(given):
        one.submit(str(number), ids, sampling())
    made = turns(one)
    for number, ids in enumerate(given):
        with torch.no_grad():
            wanted = of.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids)),
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=None,
                pad_token_id=0,
            )
        turn = made[str(number)]
        assert list(turn.ids) == wanted[0, len(ids) :].tolist() and turn.finish == "length"
        assert list(turn.logprobs) == pytest.approx(logprobs_of(of, ids, turn.ids), abs=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.15), ("float16", 0.02)])
def test_log_probabilities_in_half_precision(tmp_path: Path, dtype: str, tolerance: float) -> None:
    """Against transformers in the same dtype: three decimal digits of bfloat16 over logits of about 10 leave some hundredths."""
    import torch

    of = model("qwen3")
    of.save_pretrained(str(tmp_path))
    one = own.opened(tmp_path, rows=4, most=200, dtype=dtype)
    given = prompts(4)
    for number, ids in enumerate(given):
        one.submit(str(number), ids, sampling(number, 1.0))
    half = of.to(getattr(torch, dtype))
    for name, turn in turns(one).items():
        assert list(turn.logprobs) == pytest.approx(logprobs_of(half, given[int(name)], turn.ids), abs=tolerance)


def test_sampled_log_probabilities_are_those_of_the_distribution_that_was_sampled() -> None:
    of, given = model("llama"), prompts(6)
    for ids, turn in zip(given, generated(of, given, [sampling(seed, 0.7) for seed in range(6)]), strict=True):
        assert list(turn.logprobs) == pytest.approx(logprobs_of(of, ids, turn.ids, 0.7), abs=1e-5)


def test_a_turn_does_not_depend_on_who_else_is_served() -> None:
    """The same tokens alone, among others, and among others that join and leave on the way."""
    of, given = model("qwen3"), prompts(12)
    how = [sampling(100 + at, 1.0, tokens=3 + 5 * (at % 4)) for at in range(12)]
    together = generated(of, given, how)
    alone = [generated(of, [ids], [wish])[0] for ids, wish in zip(given, how, strict=True)]
    apart = prompts(12, common=0)
    for one, ids, wish in zip(generated(of, apart, how), apart, how, strict=True):
        assert one == replace(generated(of, [ids], [wish])[0], conversation=one.conversation)  # to the last bit
    late = engine(of, rows=3)
    made: dict[str, Generated] = {}
    todo = list(range(12))
    while len(made) < 12:
        while todo and len(late._open) < 3:
            at = todo.pop()
            late.submit(str(at), given[at], how[at])
        for turn in late.poll():
            made[turn.conversation] = turn
            late.close(turn.conversation)
    for one, other, third in zip(together, alone, (made[str(at)] for at in range(12)), strict=True):
        assert list(one.ids) == list(other.ids) == list(third.ids)
        assert list(one.logprobs) == pytest.approx(list(other.logprobs), abs=1e-5)


def test_a_prompt_in_common_is_read_once_and_turns_read_only_what_is_new() -> None:
    """By hand: 12 prompts share 40 ids, that is two full pages of 16. The first reads all of its prompt, each other leaves out 32."""
    of, given = model("llama"), prompts(12)
    one = engine(of)
    for number, ids in enumerate(given):
        one.submit(str(number), ids, sampling(number, 1.0))
    made = turns(one)
    assert one.counts["read"] == sum(map(len, given)) - 11 * 32 and one.counts["shared"] == 11 * 32
    before = one.counts["read"]
    longer = {name: [*given[int(name)], *turn.ids, 5, 6, 7] for name, turn in made.items()}
    for name, ids in longer.items():
        one.submit(name, ids, sampling(int(name), 1.0))
    again = turns(one)
    assert one.counts["read"] - before == 12 * 4  # the last token said, and three new ones
    for name, turn in again.items():
        assert list(turn.logprobs) == pytest.approx(logprobs_of(of, longer[name], turn.ids), abs=1e-5)
        assert list(turn.ids) == list(generated(of, [longer[name]], [sampling(int(name), 1.0)])[0].ids)


def test_a_past_that_is_written_anew_is_read_from_where_it_differs() -> None:
    of = model("qwen2")
    one, first = engine(of), prompts(1)[0]
    one.submit("a", first, sampling())
    turns(one)
    changed = [*first[:35], 1, 2, 3, *first[35:]]
    before = one.counts["read"]
    one.submit("a", changed, sampling())
    turn = turns(one)["a"]
    assert one.counts["read"] - before == len(changed) - 32  # 32: the full pages before the change
    assert list(turn.logprobs) == pytest.approx(logprobs_of(of, changed, turn.ids), abs=1e-5)


def test_memory_follows_tokens() -> None:
    """Pages in use: those of the shared prompt once, and of each conversation its own; none once all are over, but for what is shared."""
    of, given = model("llama"), prompts(9, common=32)
    one = engine(of, rows=64)
    for number, ids in enumerate(given):
        one.submit(str(number), ids, sampling(tokens=4))
    turns(one)
    own_pages = [math.ceil((len(ids) + 3 - 32) / 16) for ids in given]  # the last token said is not kept yet
    assert one.counts["pages"] == 2 + sum(own_pages)
    for number in range(9):
        one.close(str(number))
    assert one.counts["pages"] == 0 and one.counts["most_pages"] == 2 + sum(own_pages)
    assert one._pages.count == 64


def test_too_little_memory_makes_some_wait_and_changes_no_token() -> None:
    """Room for 10 pages of 16 tokens, where twelve conversations want some 30: they read again what they had to give up."""
    of, given = model("llama"), prompts(12, common=0)
    how = [sampling(seed, 1.0, tokens=25) for seed in range(12)]
    token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, kv heads, size, bytes
    small = engine(of, most=100, memory=10 * 16 * token)
    for number, ids in enumerate(given):
        small.submit(str(number), ids, how[number])
    made = turns(small)
    assert small.counts["most_pages"] == 10 and small.counts["read"] > sum(map(len, given))
    for number, turn in enumerate(generated(of, given, how)):
        assert list(turn.ids) == list(made[str(number)].ids)
        assert list(turn.logprobs) == pytest.approx(list(made[str(number)].logprobs), abs=1e-5)
    with pytest.raises(StageFailed, match="Lower max_episode_tokens"):
        engine(of, most=400, memory=10 * 16 * token)


@pytest.fixture
def adapted(tmp_path: Path) -> Any:
    """(base model, model that wears adapters "one" (LoRA) and "two" (DoRA), their folders)."""
    import torch
    from peft import LoraConfig, get_peft_model

    worn = get_peft_model(model("qwen3"), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"), "one")
    worn.add_adapter(
        "two", LoraConfig(r=2, use_rslora=True, use_dora=True, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in worn.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    worn.save_pretrained(str(tmp_path / "adapters"))
    return worn, {name: tmp_path / "adapters" / name for name in ("one", "two")}


def test_adapters_of_one_batch_equal_merged_weights(tmp_path: Path, adapted: Any) -> None:
    """Conversations of two adapters and of the base in one batch, with a prompt in common: each says what its merged model says."""
    worn, folders = adapted
    base = model("qwen3")
    base.save_pretrained(str(tmp_path / "base"))
    given = prompts(9)
    names = ["one", "", "two"] * 3
    from_folder = own.opened(tmp_path / "base", folders, rows=9, most=200)
    for one in (engine(worn), from_folder):
        for number, ids in enumerate(given):
            one.submit(str(number), ids, sampling(number, 1.0, adapter=names[number]))
        made = turns(one)
        for number, ids in enumerate(given):
            turn = made[str(number)]
            if names[number]:
                worn.set_adapter(names[number])
                assert list(turn.logprobs) == pytest.approx(logprobs_of(worn, ids, turn.ids), abs=1e-5)
            else:
                assert list(turn.logprobs) == pytest.approx(logprobs_of(base, ids, turn.ids), abs=1e-5)
    worn.set_adapter("one")
    merged = worn.merge_and_unload()
    for number in (0, 3, 6):
        assert list(made[str(number)].ids) == list(generated(merged, [given[number]], [sampling(number, 1.0)])[0].ids)


def test_an_adapter_that_is_not_there_or_of_another_base_is_refused(tmp_path: Path, adapted: Any) -> None:
    _, folders = adapted
    with pytest.raises(LookupError, match="no adapter 'three' is loaded; there are: one, two"):
        engine(adapted[0]).submit("a", [1], sampling(adapter="three"))
    other = model("qwen3", hidden_size=64)
    with pytest.raises(BadInput, match=r"an adapter of another base: model\.layers\.0"):
        weights.adapter_of_folder(folders["one"], weights.of_model(other)[0])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"r": 0}, "r = 0: allowed are numbers above 0"),
        ({"r": -1}, "r = -1: allowed"),
        ({"lora_alpha": 0}, "lora_alpha = 0: allowed"),
        ({"lora_alpha": None}, "lora_alpha = None: allowed"),
        ({"r": 8}, r"r = 8, and model\.layers\.0\.mlp\.down_proj has rank 4"),
        ({"rank_pattern": {"q_proj": 2}}, r"rank_pattern\['q_proj'\] = 2, and model\.layers\.0\.self_attn\.q_proj has rank 4"),
        ({"rank_pattern": [2]}, r"rank_pattern = \[2\]: allowed is an object"),
        ({"alpha_pattern": {"q_proj": 0}}, r"alpha_pattern\['q_proj'\] = 0: allowed"),
        ({"target_modules": ["nothing"]}, r'target_modules = \["nothing"\] does not name model\.layers\.0\.mlp\.down_proj'),
        ({"target_modules": ".*q_proj"}, r"does not name model\.layers\.0\.mlp\.down_proj"),
        ({"target_modules": "("}, r"target_modules = '\(' is no regular expression"),
        (None, "holds no JSON object"),
    ],
)
def test_an_adapter_whose_config_contradicts_its_weights_is_refused(adapted: Any, said: dict[str, Any] | None, why: str) -> None:
    """`cairn serve` and every road that plays it say so; what the weights' shapes say does not count alone."""
    _, folders = adapted
    stack, file = weights.of_model(model("qwen3"))[0], folders["one"] / "adapter_config.json"
    assert weights.adapter_of_folder(folders["one"], stack)
    file.write_text("[]" if said is None else json.dumps({**json.loads(file.read_text()), **said}))
    with pytest.raises(BadInput, match=f"one: .*{why}"):
        weights.adapter_of_folder(folders["one"], stack)


def test_weights_are_seen_as_they_are_at_each_step() -> None:
    """A training step between two turns changes what the next one says: nothing of the model was copied."""
    import torch

    of = model("llama")
    one = engine(of)
    one.submit("a", [1, 2, 3], sampling())
    first = turns(one)["a"]
    with torch.no_grad():
        for weight in of.parameters():
            weight.add_(0.05)
    one.submit("b", [1, 2, 3], sampling())
    assert list(first.ids) != list(turns(one)["b"].ids) == list(generated(of, [[1, 2, 3]], [sampling()])[0].ids)


@pytest.mark.parametrize("masked", [True, False])
def test_attention_of_other_devices_is_that_of_the_cpu(masked: bool) -> None:
    """The plain operations against the fused kernel, and two halves put together against the whole."""
    import torch

    torch.manual_seed(0)
    q, keys, values = torch.randn(3, 2, 5, 8), torch.randn(3, 2, 12, 8), torch.randn(3, 2, 12, 8)
    mask = torch.randn(3, 1, 5, 12) if masked else None
    whole, total = attention.part(q, keys, values, mask, 0.3)
    plain, sums = attention.plain_part(q, keys, values, mask, 0.3)
    torch.testing.assert_close(plain, whole)
    torch.testing.assert_close(sums, total)
    cuts = (slice(0, 7), slice(7, 12))
    parts = [attention.part(q, keys[:, :, cut], values[:, :, cut], None if mask is None else mask[..., cut], 0.3) for cut in cuts]
    outs, totals = (torch.stack(found, 1) for found in zip(*parts, strict=True))
    torch.testing.assert_close(attention.together(outs, totals), whole)


def test_turns_end_at_a_stop_id_at_their_most_and_at_the_longest_conversation() -> None:
    of, (ids, *_) = model("llama"), prompts(1)
    whole = generated(of, [ids], [sampling()])[0]
    stop = whole.ids[4]
    cut = generated(of, [ids], [sampling(stop=[stop])])[0]
    assert list(cut.ids) == list(whole.ids[: whole.ids.index(stop) + 1]) and cut.finish == "stop"
    short = generated(of, [ids], [sampling()], most=len(ids) + 2)[0]
    assert list(short.ids) == list(whole.ids[:2]) and short.finish == "length"
    assert generated(of, [ids], [sampling()], most=len(ids))[0].finish == "full"


def test_what_cannot_be_served_is_refused() -> None:
    one = engine(model("llama"), rows=1)
    one.submit("a", [1], sampling())
    with pytest.raises(RuntimeError, match="conversation a still owes a turn"):
        one.submit("a", [1], sampling())
    with pytest.raises(RuntimeError, match="all 1 rows are in use"):
        one.submit("b", [1], sampling())


@pytest.mark.parametrize(
    ("family", "more", "why"),
    [
        ("mistral", {"sliding_window": 64}, "sliding window of 64 tokens"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}, "sliding window of 64 tokens"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope_type is dynamic"),
    ],
)
def test_an_architecture_that_it_cannot_run_is_refused_by_name(family: str, more: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=f"{why}.*It runs model_type llama, mistral, qwen2, qwen3"):
        weights.of_model(model(family, **more))


def test_another_family_and_unknown_parameters_are_refused_by_name() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(BadInput, match="its model_type is gpt2"):
        weights.of_model(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11)))
    of = model("llama")
    of.model.layers[0].extra = torch.nn.Linear(2, 2)
    with pytest.raises(BadInput, match=r"no use for: model.layers.0.extra.bias"):
        weights.of_model(of)


def test_a_step_is_one_token_of_each_conversation_at_most() -> None:
    """The first as soon as the prompt is read; a conversation that joins later catches up by none, and says what it says alone."""
    of = model("llama")
    one, said = engine(of), dict[str, list[int]]()
    one.submit("a", [1, 2, 3], sampling())
    one.step()
    assert len(one.so_far("a").ids) == 1
    one.submit("b", [4, 5, 6, 7], sampling())
    one.step()
    assert (len(one.so_far("a").ids), len(one.so_far("b").ids)) == (1, 1)
    while len(said) < 2:
        said |= {made.conversation: list(made.ids) for made in one.step()}
    alone = [list(made.ids) for made in generated(of, [[1, 2, 3], [4, 5, 6, 7]], [sampling(), sampling()])]
    assert [said["a"], said["b"]] == alone
