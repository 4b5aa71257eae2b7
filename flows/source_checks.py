"""The checkpoint that a road begins with, looked at before anything is paid: what methods read from outside of the project (`preflight`
of their modules), and whether it has the layers that adapters name."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.adapter_checks import check_adapters
from tasks.contract.params import BadInput
from tasks.engine import methods, sources

if TYPE_CHECKING:
    from tasks.engine.plan import Plan


_passed: set[str] = set()
"""What was found good in this process: a run looks before it starts, and its flow, which may be started by itself, looks too."""


def check_sources(plan: Plan, stages: Sequence[str]) -> None:
    """Raise BadInput for a source that one of these stages, which are about to run, or those after it could not use, and for adapters
    of these stages on layers that the checkpoint has not."""
    for source in sources.named(plan.settings):
        looked = f"{source} {plan.settings.params(source.stage)} {plan.settings.shared.prompt}"
        if source.stage in stages and looked not in _passed:
            _check(plan, source)
            _passed.add(looked)
    check_adapters(plan, stages)


def _check(plan: Plan, source: sources.Source) -> None:
    from flows.preview import frozen_worlds

    settings, stage = plan.settings, source.stage
    place = sources.found(source, settings.project, plan.store)
    module = methods.load(settings.room(stage), settings.method(stage))
    with tempfile.TemporaryDirectory() as folder:
        inputs = module.Inputs(worlds=frozen_worlds(plan, stage, Path(folder) / "worlds"), source=place)
        try:
            found = module.preflight(inputs, settings.params(stage), settings.shared.prompt.model_dump())
            later = [name for name in settings.road.names if name in settings.road.after(stage)]
            for engine in sorted({chosen["method"] for name in later if (chosen := settings.engine(name))}):
                package = methods.engine_module(engine)
                if found is not None and hasattr(package, "check_checkpoint"):  # what a server runs, the server knows
                    package.check_checkpoint(found.config.get_text_config(), [*found.shapes])
        except BadInput as error:
            raise BadInput(f"{source.param} = {source.text!r}: {error}") from None
