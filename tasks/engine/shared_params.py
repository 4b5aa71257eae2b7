"""The params that belong to no single stage: seed, device, who plays which role, the budget of calls, what follows a decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from tasks.contract.params import Params

NOBODY = "none"
"""The backend of a role that nobody plays; only the contender's may be."""
SERVER = "openai_compatible"
"""The backend of a model behind a server."""


class Prompt(Params):
    """How much the agent's system prompt carries."""

    tools: Literal["full", "names", "none"] = Field("full", description="tool schemas, names alone, or nothing")
    policy: Literal["full", "none"] = Field("full", description="the world's policy text, or nothing")


class Role(Params):
    """Who plays a model's role."""

    backend: Literal["scripted", "local", "openai_compatible", "none"] = Field(
        "scripted",
        description="a script, a checkpoint in this process, or a model behind a server; none: nobody, for the contender alone",
    )
    path: str = Field("", description="folder of the checkpoint, for backend local")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the weights, for backend local")
    identity: str = Field("", description="what is behind a name: the checkpoint's bytes (local), or your word for a server's version")
    errors: dict[str, float] = Field({}, description="rate in [0, 1] of each systematic error of the script")
    base_url: str = Field("", description="where the server's API begins, such as http://127.0.0.1:8000/v1")
    model: str = Field("", description="the model's name at that server")
    key_env: str = Field("", description="name of the environment variable that holds the key (never the key)")
    key_block: str = Field("", description="or the name of a Prefect Secret block that holds it")
    price_in: float = Field(0.0, ge=0, description="money for a million tokens sent; 0 is unknown")
    price_out: float = Field(0.0, ge=0, description="money for a million tokens answered; 0 is unknown")
    max_in_flight: int = Field(32, ge=1, le=1024, description="most calls at once; fewer while the server says 429")
    timeout_seconds: float = Field(180.0, gt=0, le=3600, description="of one attempt at a call, its answer included")
    retries: int = Field(5, ge=1, le=20, description="attempts of a call before it waits for the end of its batch")
    structured: Literal["json_schema", "json_object", "prompt"] = Field(
        "json_schema", description="how a wanted form is asked for: as response_format, as JSON mode with words, in words alone"
    )
    send_seed: bool = Field(True, description="pass seeds on; false for a server that refuses them")
    temperature: float | None = Field(None, ge=0, le=2, description="instead of what the method wants; empty: as the method wants")
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="most tokens of an answer; empty: as the method wants (generator, recombiner 2048, critics 1024, judge, feedback "
        "512, agent, contender 256, human 128, human_critic 32). A server is asked once more, with four times the room, when it is cut",
    )
    thinking: int = Field(0, ge=0, le=1_000_000, description="tokens added to the most of every answer, for a model that thinks first")
    content_beside_calls: Literal["null", "absent", "empty"] = Field(
        "null", description="content of a message that only calls tools: null, left out, or an empty text, which some servers want"
    )
    images: bool = Field(
        False, description="show the model the pictures in tools' answers, in a message after them; else their names alone, as text"
    )
    others: list[Role] = Field([], description="further models that play the role in turn: a committee of several judges")
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the server calls the most tokens of an answer"
    )


REACHED = frozenset(
    ("path", "base_url", "key_env", "key_block", "price_in", "price_out", "max_in_flight", "timeout_seconds", "retries")
)
"""Of a role: where its model is, what it costs and how patiently it is asked. No answer depends on it, so no key of a result holds it;
everything else of a role changes answers and is in the key. (`path` is a place; a local checkpoint is named by its `identity`.)"""

ROLES = (
    "generator",
    "judge",
    "feedback",
    "recombiner",
    "human",
    "human_critic",
    "agent",
    "contender",
    "critic",
    "meta_critic",
    "aggregator",
)


class Budget(Params):
    """What the calls of one run to servers may use. Answers from the cache use nothing."""

    max_cost: float = Field(0.0, ge=0, description="money, in the unit of the roles' prices; 0 is no limit")
    max_tokens: int = Field(0, ge=0, description="tokens sent and answered; 0 is no limit")


class Losing(Params):
    """How much may be lost for one reason before a stage that asks models stops with that reason. It changes no result."""

    share: float = Field(0.9, gt=0, le=1, description="share of a role's calls to servers, or of a stage's conversations")
    least: int = Field(50, ge=0, le=1_000_000, description="so many must be lost for that reason; 0 never stops")
    unanswered: float = Field(
        0.01, ge=0, le=1, description="share of a role's calls that may stay without an answer after all attempts; each loses its item"
    )


class Promote(Params):
    """What happens after the decision."""

    model: str = Field("cairn-agent", min_length=1, description="name in the registry")
    approval: Literal["auto", "manual"] = Field("auto", description="move the alias at once, or ask a person first")
    form: Literal["full", "adapter"] = Field(
        "full",
        description="what a version holds of an agent that is an adapter: it merged into its base, or it alone, with its base's name",
    )

    moved_by_hand: Literal["tell", "adopt", "restore"] = Field(
        "tell",
        description="what happens when somebody moved the alias in MLflow, past Cairn; tell: it is said, and nothing is promoted until "
        "a person has settled it; adopt: the ledger and decisions take that version over; restore: the alias is put back",
    )
    ledger: str = Field(
        "",
        description="Postgres database that keeps who moved the alias, when and why, such as postgresql://cairn@db.example/cairn, for "
        "all who share a registry; empty: .cairn/promotions.db. A password comes from PGPASSWORD or ~/.pgpass",
    )

    @field_validator("ledger")
    @classmethod
    def _a_database_without_its_password(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            good = not url or (parts.scheme in ("postgresql", "postgres") and parts.hostname and parts.path.strip("/"))
            secret = parts.password is not None or "password" in parts.query
        except ValueError:
            good, secret = False, False
        if secret:
            raise ValueError("a URL without a password, which belongs in PGPASSWORD or in ~/.pgpass")
        if not good:
            raise ValueError("postgresql://USER@HOST:PORT/DATABASE, or empty for a file of the project's own")
        return url

    @field_validator("model")
    @classmethod
    def _a_name_that_the_registry_takes(cls, name: str) -> str:
        """MLflow makes a path, a URI and a query of it and stores at most 256 characters; it would say so after the last stage."""
        if name.strip() != name or len(name) > 200 or not name.isprintable() or set(name) & set("/:\\'\".%?@"):
            raise ValueError("a name of at most 200 printable characters, without / : \\ . % ? @, quotes and blanks around it")
        return name


class Tracking(Params):
    """What MLflow is given beside params, figures and models. It changes no result."""

    traces: int = Field(
        500,
        ge=0,
        le=100_000,
        description="conversations of an evaluation that become traces when it is computed, spread over models and worlds; 0: none. "
        "10 to 30 ms each, after the stage",
    )


class Shared(Params):
    """The params that belong to no single stage."""

    profile: str = Field("", description="name of the profile this file was made from")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="root of every random stream")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of a training or an evaluation; part of the key")
    instructions: Literal["avx2", "avx512_bf16"] = Field(
        "avx2",
        description="of the CPU, for matrix products in bfloat16 of a training or an evaluation; avx2: any x86 CPU, five times slower "
        "than float32; avx512_bf16: twice as fast as float32 (AMD since Zen 4, Intel since Sapphire Rapids); part of the key",
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="where tensors live")
    memory: float = Field(
        0.0,
        ge=0,
        le=65536,
        description="GiB of a GPU, or on a CPU of the host, that `cairn forecast` compares with; 0: this host's",
    )
    prompt: Prompt = Prompt()
    roles: dict[str, Role] = Field({}, description="backend of each role; scripted where not named")
    budget: Budget = Budget()
    losses: Losing = Losing()
    promote: Promote = Promote()
    tracking: Tracking = Tracking()

    @property
    def contender(self) -> bool:
        """Whether somebody plays the contender: an agent that is evaluated beside the road's checkpoints."""
        return "contender" in self.roles and self.roles["contender"].backend != NOBODY

    def players(self) -> Iterator[tuple[str, str, Role]]:
        """(name, dotted key, configuration) of everybody who plays a role: judge, then judge/2, as `Context.panel` names them."""
        for name, role in self.roles.items():
            yield name, f"roles.{name}", role
            for number, other in enumerate(role.others):
                yield f"{name}/{number + 2}", f"roles.{name}.others[{number}]", other


def answer_params(role: Role) -> dict[str, Any]:
    """What of a role changes its answers, defaults filled in."""
    return {**role.model_dump(mode="json", exclude={*REACHED, "others"}), "others": [answer_params(other) for other in role.others]}
