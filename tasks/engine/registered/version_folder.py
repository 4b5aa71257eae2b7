"""The folder of a registered version: the weights as MLflow's transformers flavor, and a pyfunc that acts by the agent's card. Of an
adapter: its own files, and the pyfunc.

Both flavors read the same weights. The code that acts travels along as the package `cairn_agent`: the files of this project that
`chat_model.py` reaches, under another name so that no installed package hides them.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tasks
from tasks.checkpoints import folders
from tasks.serving.endpoint.card import FILE
from tasks.worlds.api.imports import reach

PACKAGE = "cairn_agent"
ENTRY = "tasks.engine.registered.chat_model"
NEEDED = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "jinja2")
"""Other projects that loading a version, generating with it and reading what it says need."""
_OURS = re.compile(r"\btasks(?=\.)")
_INIT = '''"""The agent of a version that Cairn registered. `Agent(model, tokenizer, card).reply(messages)` is its next turn."""

from cairn_agent.engine.registered.agent import Agent

__all__ = ["Agent"]
'''


def write(folder: Path, checkpoint: Path, card: Mapping[str, Any], model_id: str) -> None:
    """Write the version of a whole checkpoint into a folder that is not there yet. model_id: of the logged model that it becomes."""
    import mlflow
    from mlflow.models import Model

    model, tokenizer = folders.load(checkpoint)
    _set_generation(model, [int(tokenizer.convert_tokens_to_ids(end)) for end in card["chat_format"]["ends"]], card["generation"])
    code = write_code(folder.parent / f"{folder.name}-code")
    about = Model(model_id=model_id)
    mlflow.transformers.save_model(
        {"model": model, "tokenizer": tokenizer},
        str(folder),
        task="text-generation",
        code_paths=[str(code / PACKAGE)],
        pip_requirements=requirements(),
        mlflow_model=about,
    )
    _add_chat(about, folder, code, card, {"model": "model", "tokenizer": "components/tokenizer"}, {"conda_env": "conda.yaml"})


def write_adapter(folder: Path, checkpoint: Path, card: Mapping[str, Any], model_id: str) -> None:
    """Write the version of an adapter into a folder that is not there yet: its files as they are, so that PEFT loads the folder, and
    the pyfunc, which takes the folder of the base as `model_config={"base": ...}`. model_id: as in `write`."""
    from mlflow.models import Model

    shutil.copytree(checkpoint, folder)
    code = write_code(folder / "code")
    (folder / "requirements.txt").write_text("\n".join(requirements("peft")) + "\n", "utf-8")
    python = {"python": platform.python_version(), "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(json.dumps(python) + "\n", "utf-8")
    _add_chat(Model(model_id=model_id), folder, code, card, {"adapter": ".", "tokenizer": "."}, {"model_config": {"base": ""}})


def _add_chat(about: Any, folder: Path, code: Path, card: Mapping[str, Any], files: Mapping[str, str], more: Mapping[str, Any]) -> None:
    """Add the agent's card and the pyfunc to a version's folder, and write its MLmodel. code: of `write_code`. files: what
    `chat_model.py` loads, by its place in the folder."""
    import mlflow
    from mlflow.pyfunc.loaders import code_model
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

    (folder / FILE).write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "chat_model.py").write_text((code / PACKAGE / "engine/registered/chat_model.py").read_text())
    about.signature = mlflow.models.ModelSignature(CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA)
    about.metadata = {**(about.metadata or {}), "task": "agent/v1/chat"}
    mlflow.pyfunc.add_to_model(
        about,
        loader_module=code_model.__name__,
        code="code",
        python_env="python_env.yaml",
        model_code_path="chat_model.py",
        artifacts={name: {"path": path, "uri": path} for name, path in {**files, "card": FILE}.items()},
        **more,
    )
    about.save(str(folder / "MLmodel"))


def write_code(folder: Path) -> Path:
    """Write the package `cairn_agent` into a folder; returns the folder."""
    for name, path in _reached().items():
        inside = PACKAGE if name == "tasks" else name.replace("tasks.", f"{PACKAGE}/", 1).replace(".", "/")
        target = folder / (f"{inside}/__init__.py" if path.name == "__init__.py" else f"{inside}.py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_INIT if name == "tasks" else _OURS.sub(PACKAGE, path.read_text("utf-8")), "utf-8")
    return folder


def requirements(*more: str) -> list[str]:
    """What the weights and the code need of other projects, at the versions that are installed here; a build's local part (2.1+cpu) is
    left out, as no index has it."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in (*NEEDED, *more)]


def _reached() -> dict[str, Path]:
    return reach(Path(tasks.__file__).parent.parent, [ENTRY])


def _set_generation(model: Any, ends: list[int], generation: Mapping[str, Any]) -> None:
    """Let whoever generates with the bare model stop and sample as the agent does."""
    config = model.generation_config
    config.eos_token_id, config.pad_token_id, config.max_new_tokens = ends, ends[0], generation["max_new_tokens"]
    config.do_sample = generation["temperature"] > 0
    if config.do_sample:
        config.temperature, config.top_k, config.top_p = generation["temperature"], 0, 1.0
