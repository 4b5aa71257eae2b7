"""Whether a road's checkpoint has the layers that its adapters name, found out before anything is paid and without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tasks.checkpoints.adapter_params import AdapterParams
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import methods, sources
from tasks.engine.together import adapter_of

if TYPE_CHECKING:
    from tasks.engine.plan import Plan


def check_adapters(plan: Plan, stages: Sequence[str]) -> None:
    """Raise BadInput where one of these stages, which are about to run, names layers in `loop.adapter` that the model has not."""
    for stage, params in _naming_layers(plan, stages):
        if (config := _config(plan)) is None:
            return
        try:
            _put_on_empty(config, params)
        except StageFailed as wrong:
            raise BadInput(f"{plan.settings.source}: {stage}.{wrong}") from None


def _naming_layers(plan: Plan, stages: Sequence[str]) -> Iterator[tuple[str, AdapterParams]]:
    """Stages whose adapter names layers of the road's checkpoint; a method that prepares the model by itself may bring them."""
    for stage in stages:
        params = adapter_of(plan.settings, stage)
        if not params or params.kind == "none" or not (params.modules_to_save or params.targets != "all-linear"):
            continue
        if not methods.prepares(plan.settings.room(stage), plan.settings.method(stage)):
            yield stage, params


def _put_on_empty(config: Any, params: AdapterParams) -> None:
    """Put a new adapter on a model without any numbers. StageFailed as it would come from the training."""
    import torch
    from transformers import AutoModelForCausalLM

    from tasks.checkpoints.starting import put_new

    with torch.device("meta"):
        put_new(AutoModelForCausalLM.from_config(config, trust_remote_code=False), params)


def _config(plan: Plan) -> Any:
    """What transformers knows of the checkpoint that the road begins with: as its step has left it, as it lies outside, or as its
    method would build it. None for a method that does not say."""
    from transformers import AutoConfig

    from flows.survey import survey
    from tasks.checkpoints import gguf_file, source

    settings = plan.settings
    stage = settings.road.entering("base")[0]
    if there := next((step.artifact for step in survey(plan) if step.stage == stage), None):
        return source.read_config(plan.store.view(there.identity) / "model")
    if outside := sources.of_stage(settings, stage):
        place = sources.found(outside, settings.project, plan.store)
        return gguf_file.config_and_tokenizer(place)[0] if gguf_file.is_gguf(place) else source.read_config(place)
    method = methods.load(settings.room(stage), settings.method(stage))
    if not hasattr(method, "config"):
        return None
    built = dict(method.config(settings.params(stage)))
    return AutoConfig.for_model(built.pop("model_type"), **built)
