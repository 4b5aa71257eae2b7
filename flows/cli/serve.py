"""`cairn serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from flows.cli import group

if TYPE_CHECKING:
    from tasks.serving.endpoint.app import Served

app = group.app()

STOPPED = "stopped; nothing is served any more"


@app.command(cls=group.Command)
def serve(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]", help="champion, challenger, the number of a version, a checkpoint folder, or artifact:<identity>."
        ),
    ] = "champion",
    adapters: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer)
        typer.Option("--adapter", metavar="NAME=FOLDER", help="A LoRA adapter to begin with; as often as you like."),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The base's name in requests; default: the folder's.")] = "",
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="The address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="The port.")] = 8000,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where tensors live.")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", metavar="DTYPE", help="float32, bfloat16 or float16; default: the folder's.")] = "",
    most: Annotated[int, typer.Option("--max-tokens", metavar="N", min=2, help="Tokens of the longest conversation.")] = 8192,
    keep: Annotated[
        str, typer.Option("--keep", metavar="yes|no", help="Whether chats are kept, one JSON line an answer, in .cairn/served/.")
    ] = "yes",
    changed: Annotated[
        str,
        typer.Option("--changed-worlds", metavar="yes|no", help="Whether an agent is served whose worlds have changed since then."),
    ] = "no",
) -> int:
    """OpenAI's /v1/chat/completions, whole or streamed, with tools: the agent is told what it was told when it was evaluated, unless
    a request brings a system message of its own. And token ids in, token ids and their log-probabilities out: /v1/completions,
    /v1/models, /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them; a step of the road plays with it by engine:
    {method: server}.

    Examples:
      cairn serve                      the champion
      cairn serve 3 --keep no          version 3 of promote.model; nothing that is said is kept
      cairn serve data/sft/model
      cairn serve models/instruct --adapter retail=data/rl/retail/adapter --port 8001
    """
    from pathlib import Path

    from flows import STATE, interrupt, server_checks
    from flows.serving.run import check_port
    from flows.serving.run import serve as answer
    from flows.serving.source import named
    from flows.serving.world_changes import card_for_now
    from tasks.contract.params import BadInput
    from tasks.serving.endpoint.kept import FOLDER, Kept
    from tasks.serving.endpoint.opened import opened, with_chat

    if dtype not in ("", "float32", "bfloat16", "float16") or device not in ("cpu", "cuda"):
        raise BadInput(f"--dtype {dtype!r}, --device {device!r}: allowed are float32, bfloat16, float16 and cpu, cuda")
    for option, value in (("--keep", keep), ("--changed-worlds", changed)):
        if value not in ("yes", "no"):
            raise BadInput(f"{option} {value!r}: allowed are yes and no")
    pairs = [one.partition("=") for one in adapters or ()]
    if wrong := next((one for one, (key, _, folder) in zip(adapters or (), pairs, strict=True) if not key or not folder), ""):
        raise BadInput(f"--adapter {wrong}: expected NAME=FOLDER")
    interrupt.ends_with(STOPPED)
    check_port(host, port)
    server_checks.mlflow()
    found = named(checkpoint)
    given = {key: Path(value) for key, _, value in pairs} | ({found.name: found.folder} if found.base else {})
    served = opened(found.base or found.folder, given, name or ("base" if found.base else found.name), device, dtype, most)
    with_chat(served, lambda: card_for_now(found, changed == "yes"), Kept(STATE / FOLDER if keep == "yes" else None))
    print(f"{served.name} at http://{host}:{port}/v1, with the adapters: {', '.join(served.adapters) or 'none'}. Ctrl-C ends it.")
    print(_of_chat(served))
    answer(served, host, port)
    return 0


def _of_chat(served: Served) -> str:
    if served.chat is None:
        return f"No chat, token ids alone: {served.no_chat}"
    worlds, kept = ", ".join(served.chat.prompting.card["worlds"]), served.chat.kept.folder
    known = f"as the agent of {worlds}" if worlds else "without a system message of its own: there are no worlds in data/worlds"
    return f"It chats {known}; what is said is kept {f'in {kept}' if kept else 'nowhere'}."
