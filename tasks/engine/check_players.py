"""Whether what the params name outside of them is there: checkpoints and servers of roles, a GPU."""

from __future__ import annotations

import re
from pathlib import Path

from tasks.checkpoints.source import check_folder
from tasks.contract.params import BadInput, brief, nearest
from tasks.contract.servers import check_address, check_key
from tasks.engine.shared_params import NOBODY, SERVER, Budget, Role, Shared

CPU = Path("/proc/cpuinfo")
"""What Linux says of the processor; its line `flags` names the instructions."""


def check_roles(shared: Shared, project: Path, source: str) -> None:
    """Raise BadInput for a role whose player cannot be there. source: the file that the params stand in, for the message."""
    from tasks.players import scripted

    for name, key, role in shared.players():
        where = f"{source}: {key}"
        given = next((param for param in ("base_url", "model", "path") if getattr(role, param)), "")
        if given and "backend" not in role.model_fields_set:
            raise BadInput(
                f"{where}.backend is missing: beside {given} alone a script would play the role. Write backend: {SERVER} for a "
                "model behind a server, backend: local for a checkpoint's folder."
            )
        if role.backend == NOBODY:
            _check_nobody(name, role, where)
        if role.others and name != "judge":
            raise BadInput(f"{where}.others: several models in turn are for the judge's role alone, and one list deep.")
        if role.images and (role.backend != SERVER or name not in ("agent", "contender")):
            raise BadInput(
                f"{where}.images: pictures in tools' answers are shown to an agent or a contender behind a server alone (backend: "
                f"{SERVER}). Leave it out: everybody else reads their names in the text."
            )
        if role.backend == "local":
            check_folder(project / role.path, f"{where}.path = {brief(role.path)}")
        if role.backend == SERVER:
            _check_server(role, shared.budget, where)
        known = scripted.errors_of(name.partition("/")[0])
        for error, rate in role.errors.items():
            if error not in known:
                raise BadInput(
                    f"{where}.errors: unknown error {brief(error)}.{nearest(error, known)} Known: {', '.join(known) or 'none'}."
                )
            if not 0 <= rate <= 1:
                raise BadInput(f"{where}.errors.{error} = {rate}: a rate is between 0 and 1")


def _check_nobody(name: str, role: Role, where: str) -> None:
    """Only the contender may be left out, and then nothing of it may be left behind that would seem to count."""
    if name != "contender":
        raise BadInput(f"{where}.backend = {NOBODY}: only the contender may be left out. Allowed here: scripted, local, {SERVER}.")
    if role != Role(backend=NOBODY):
        beside = ", ".join(sorted(role.model_fields_set - {"backend"}))
        raise BadInput(
            f"{where}.backend = {NOBODY} beside {beside}: nobody would play. Write backend: scripted, local or {SERVER}; or leave out "
            f"{beside}."
        )


def _check_server(role: Role, budget: Budget, where: str) -> None:
    """What a role behind a server needs. What was given for a key's name is never shown: it may be the key."""
    quoted = f" = {role.base_url!r}" if "@" not in role.base_url else ""
    begins = f"{quoted}: where the API begins, with http:// or https://, often ending in /v1"
    url = check_address(role.base_url, where, begins)
    if role.base_url.rstrip("/").endswith("/chat/completions"):
        raise BadInput(f"{where}.base_url = {role.base_url!r}: without /chat/completions, which is added for each call")
    if not role.model.strip():
        raise BadInput(f"{where}.model is missing: the model's name at {role.base_url}")
    check_key(role.key_env, role.key_block, where)
    free = role.price_in or role.price_out or url.hostname in ("127.0.0.1", "localhost", "::1")
    if budget.max_cost and not free:
        raise BadInput(
            f"{where}: budget.max_cost = {budget.max_cost:g} cannot be kept while price_in and price_out are unknown. Write them, or "
            "limit tokens (budget.max_tokens) instead."
        )


def has_instructions(instructions: str) -> bool:
    """Whether this CPU computes in bfloat16 by them; AVX2, which is float32's, is taken for granted."""
    try:
        told = re.search(r"^flags\b.*", CPU.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        told = None
    return instructions == "avx2" or instructions in (told.group().split() if told else ())


def check_instructions(instructions: str, where: str) -> None:
    """BadInput for instructions that this CPU does not have: bfloat16 would be computed many times slower without a word."""
    if not has_instructions(instructions):
        raise BadInput(
            f"{where}: {instructions}, which this CPU does not have (flags in /proc/cpuinfo). Set instructions: avx2, and dtype: "
            "float32 in loops and evaluation, which is faster there than bfloat16."
        )


def check_device(device: str, where: str, processes: int = 1) -> None:
    """GPUs that are not there are told now, not by the first training; without importing torch, which takes seconds. processes: of the
    training that takes most, each with a GPU of its own."""
    if device != "cuda":
        return
    if not _has_cuda():
        raise BadInput(f"{where}: cuda, but this torch is built without CUDA. One with: `make setup LOCK=requirements-cuda.lock`.")
    if not (found := _gpus()):
        raise BadInput(f"{where}: cuda, but the driver shows no GPU here (see nvidia-smi, CUDA_VISIBLE_DEVICES). Or: device: cpu.")
    if found < processes:
        allowed = f"up to {found}" if found > 1 else "kind: none, processes: 1"
        raise BadInput(
            f"{where}: cuda, but distributed.processes = {processes} take a GPU each, and the driver shows {found} here (see "
            f"nvidia-smi, CUDA_VISIBLE_DEVICES). Allowed: {allowed}."
        )


def _has_cuda() -> bool:
    """Whether torch is built with CUDA, by its file of versions."""
    import importlib.util

    spec = importlib.util.find_spec("torch")
    build = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
    return not re.search(r"^cuda.*= None$", build, re.MULTILINE)


def _gpus() -> int:
    """How many GPUs the driver shows to this process; 0 without a driver."""
    import ctypes

    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except OSError:
        return 0
    return count.value if found else 0
