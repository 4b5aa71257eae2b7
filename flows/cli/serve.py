"""`cairn serve`."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from flows.cli import group

app = group.app()

WITH_TOOLS: Any = {"rich_help_panel": "With tools"}
STOPPED = "stopped; nothing is served any more"


@app.command(cls=group.Command)
def serve(
    agents: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer)
        typer.Argument(
            metavar="[WHAT ...]",
            help="One or two: champion (the default), challenger, the number of a version, a folder, or artifact:<identity>.",
        ),
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Let the second (default: challenger) answer beside the first, for the log alone.")
    ] = False,
    adapters: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer)
        typer.Option("--adapter", metavar="NAME=FOLDER", help="A LoRA adapter to begin with; as often as you like."),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The first one's name in requests; default: its own.")] = "",
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="The address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="The port.")] = 8000,
    engine: Annotated[str, typer.Option("--engine", metavar="own|vllm", help="What computes: this process, or a vLLM server.")] = "own",
    server: Annotated[
        str, typer.Option("--server", metavar="URL", help="A vLLM that runs with the same checkpoint; without it one is started.")
    ] = "",
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
    world: Annotated[
        str,
        typer.Option("--with-tools", metavar="WORLD", help="Call this world's tools here, on what is really behind it.", **WITH_TOOLS),
    ] = "",
    unguarded: Annotated[
        bool, typer.Option("--allow-unguarded", help="Also write with tools that no predicate of the policy guards.", **WITH_TOOLS)
    ] = False,
    tool_calls: Annotated[
        int, typer.Option("--tool-calls", metavar="N", min=1, help="Most calls for one line of the user's.", **WITH_TOOLS)
    ] = 20,
    tool_seconds: Annotated[
        float, typer.Option("--tool-seconds", metavar="S", min=0.1, max=3600, help="For which a call is waited for.", **WITH_TOOLS)
    ] = 30.0,
) -> int:
    """OpenAI's /v1/chat/completions, whole or streamed, with tools: the agent is told what it was told when it was evaluated, unless
    a request brings a system message of its own. And token ids in, token ids and their log-probabilities out: /v1/completions,
    /v1/models, /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them; a step of the road plays with it by engine:
    {method: server}.

    With --with-tools a request holds what user and agent said, and no tools: agent and tools go on here until the agent replies or
    hands over. Each write is checked by the policy's predicates first. A request goes on with the conversation that it repeats, or with
    that of metadata: {"conversation": ID}, the id in each answer.

    Examples:
      cairn serve                      the champion
      cairn serve champion challenger  both; a request's `model` says which. Adapters of one base share its weights
      cairn serve --shadow             the challenger answers what the champion was asked, in .cairn/served/ alone
      cairn serve --engine vllm        by a vLLM server, which is started; --server http://127.0.0.1:8001 takes one that runs
      cairn serve 3 --keep no          version 3 of promote.model; nothing that is said is kept
      cairn serve data/sft/model
      cairn serve --with-tools retail
      cairn serve models/instruct --adapter retail=data/rl/retail/adapter --port 8001
    """
    from pathlib import Path

    from flows import PROJECT, STATE, interrupt, server_checks
    from flows.serving import run, start
    from tasks.contract.params import BadInput
    from tasks.serving.endpoint.kept import FOLDER, Kept

    if dtype not in ("", "float32", "bfloat16", "float16") or device not in ("cpu", "cuda"):
        raise BadInput(f"--dtype {dtype!r}, --device {device!r}: allowed are float32, bfloat16, float16 and cpu, cuda")
    for option, value in (("--keep", keep), ("--changed-worlds", changed)):
        if value not in ("yes", "no"):
            raise BadInput(f"{option} {value!r}: allowed are yes and no")
    if engine not in ("own", "vllm") or (server and engine != "vllm"):
        raise BadInput(f"--engine {engine!r}, --server {server!r}: allowed are own and vllm, and an address with vllm alone")
    pairs = [one.partition("=") for one in adapters or ()]
    if wrong := next((one for one, (key, _, folder) in zip(adapters or (), pairs, strict=True) if not key or not folder), ""):
        raise BadInput(f"--adapter {wrong}: expected NAME=FOLDER")
    texts = agents or ["champion"]
    if shadow and keep == "no":
        raise BadInput(
            "--shadow --keep no: the second one's answers go to the log alone, and nothing is kept. Take one of the two away."
        )
    if world and (shadow or keep == "no"):
        other = "--shadow: what a second one would call is not called" if shadow else "--keep no: what is written must be kept"
        raise BadInput(f"--with-tools goes without {other}")
    interrupt.ends_with(STOPPED)
    run.check_port(host, port)
    server_checks.mlflow()
    found = start.agents([*texts, "challenger"] if shadow and len(texts) == 1 else texts, name)
    kept = Kept(STATE / FOLDER if keep == "yes" else None)
    how = start.How(device, dtype, most, changed == "yes", engine == "vllm", server, kept)
    engines, beside = start.open_agents(found, {key: Path(value) for key, _, value in pairs}, how), None
    if shadow:
        engines, beside = start.with_shadow(engines, found)
        interrupt.ends_with(lambda: f"{STOPPED}. {beside.summary()}")
    told, first = [f"{found[1].name} answers beside it, for the log."] if shadow else [], None
    if world:
        from flows.with_tools.opened import Limits, with_tools

        told, first = with_tools(engines, world, PROJECT, STATE, unguarded, Limits(tool_calls, tool_seconds))
    print("\n".join([*run.lines(engines, host, port), *told]), flush=True)
    run.serve(engines, beside, host, port, first)
    return 0
