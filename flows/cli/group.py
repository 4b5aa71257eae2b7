"""The list of commands as typer shows it, and the way from what was typed to a command or to the nearest one."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from flows.cli.catalogue import COMMANDS

WIDTH = 120
"""Columns of help that is piped; ours."""


class Command(TyperCommand):
    """A command whose help is set by rich on a terminal, and is plain text elsewhere. With `--json` it prints its document alone."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what anything but `print_json` prints goes to the error stream where a document is wanted."""
        from flows.cli.output import alone

        with alone(bool(ctx.params.get("as_json"))):
            return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the command's help, its examples indented."""
        if sys.stdout.isatty():
            _prepare_for_rich(self, ctx)
            super().format_help(ctx, formatter)
        else:
            _write_plainly(self, ctx, formatter)


class Group(TyperGroup):
    """A command with commands below it: alone it shows its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help where nothing else is asked for; that is no mistake (exit code 0)."""
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["--help"]))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the first argument names. Raises BadInput, with the nearest one, when there is none."""
        command = self.load(ctx, args[0])
        if command is None and not ctx.resilient_parsing:
            from tasks.contract.params import BadInput, nearest

            known = self.list_commands(ctx)
            raise BadInput(f"no command {args[0]!r}.{nearest(args[0], known)} {ctx.command_path} has: {', '.join(known)}.")
        return args[0] if command else None, command, args[1:]

    def load(self, ctx: Any, name: str) -> Any:
        """The command itself, ready to run."""
        return self.get_command(ctx, name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the group's help, commands under the panels of the catalogue."""
        if sys.stdout.isatty():
            _prepare_for_rich(self, ctx)
            super().format_help(ctx, formatter)
        else:
            _write_plainly(self, ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, each group under its name."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            panels.setdefault(command.rich_help_panel or "Commands", []).append((name, command.short_help or ""))
        width = max(len(name) for name in self.list_commands(ctx))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl([(f"{name:<{width}}", summary) for name, summary in rows])


class Catalogue(Group):
    """`cairn` itself: it lists commands without importing them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What the help says of a command."""
        about = COMMANDS.get(cmd_name)
        return about and Command(cmd_name, short_help=about.summary, rich_help_panel=about.panel)

    def load(self, ctx: Any, name: str) -> Any:
        """Import the command's file; its help begins with what the list says of it."""
        if name not in COMMANDS:
            return None
        about = COMMANDS[name]
        app = importlib.import_module(f"flows.cli.{about.module}").app
        command = typer.main.get_group(app).commands[name]
        command.help = "\n\n".join(filter(None, (f"{about.summary[:1].upper()}{about.summary[1:]}.", command.help)))
        return command


def _prepare_for_rich(command: Any, ctx: Any) -> None:
    """Rich breaks lines by itself: a paragraph becomes one line, and an indented line (an example) keeps its place by an empty mark."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(re.sub(r"\n(?! )", " ", one).replace("\n ", "\n[b][/b] ") for one in paragraphs)
    for param in command.get_params(ctx):
        if getattr(param, "is_flag", False):
            param.metavar = ""  # else typer writes <bool>


def _write_plainly(command: Any, ctx: Any, formatter: Any) -> None:
    formatter.width = WIDTH
    command.format_usage(ctx, formatter)
    formatter.write("\n")
    for line in inspect.cleandoc(command.help or "").splitlines():
        formatter.write(f"{line}\n")
    panels: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        if record := param.get_help_record(ctx):
            kind = "Arguments" if param.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(param, "rich_help_panel", None) or kind, []).append(record)
    for panel, rows in sorted(panels.items(), key=lambda one: (one[0] != "Arguments", one[0] != "Options")):
        with formatter.section(panel):
            formatter.write_dl(rows)
    if isinstance(command, Group):
        command.format_commands(ctx, formatter)


def app() -> typer.Typer:
    """A file's commands, to be filled by its functions (`@commands.command(cls=Command)`)."""
    return typer.Typer(cls=Group, add_completion=False, context_settings=SETTINGS, rich_markup_mode="rich")


SETTINGS = {"help_option_names": ["-h", "--help"]}

_top = typer.Typer(cls=Catalogue, context_settings=SETTINGS, rich_markup_mode="rich", pretty_exceptions_enable=False)


def _show_version(is_set: bool) -> None:
    if is_set:
        import tomllib

        from flows import CODE

        with open(f"{CODE}/pyproject.toml", "rb") as file:
            print(f"cairn {tomllib.load(file)['project']['version']} ({CODE})")
        raise typer.Exit()


@_top.callback()
def cairn(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and the folder of the code.")
    ] = False,
) -> None:
    """From a tool API to a small agent that is good at it.

    Examples:
      cairn run                   the whole road, from a world to a promoted agent
      cairn run --dry-run         what would run, and why; nothing runs
      cairn status                what is cached, and what is inherited from the surroundings
      cairn COMMAND --help        what a command does, with examples
    """


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code. Raises BadInput for arguments that it does not take."""
    command = typer.main.get_command(_top)
    try:
        return int(command.main(args=list(arguments), prog_name="cairn", standalone_mode=False) or 0)
    except typer.TyperException as error:
        from tasks.contract.params import BadInput

        raise BadInput(_in_words(error, arguments)) from None
    except SystemExit as end:  # of completion
        return int(end.code or 0)


def _in_words(error: typer.TyperException, arguments: Sequence[str]) -> str:
    """What typer found wrong, with the nearest option and where to read more."""
    ctx: Any = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else " ".join(["cairn", *(name for name in arguments[:1] if name in COMMANDS)])
    message = error.message if getattr(error, "possibilities", None) is not None else error.format_message()
    if option := getattr(error, "option_name", ""):
        from tasks.contract.params import nearest

        known = [name for param in ctx.command.get_params(ctx) for name in param.opts if name.startswith("-")] if ctx else []
        message = f"{message.rstrip('.')}.{nearest(option, known)}" if option not in known else message
    end = "" if message.endswith("?") else "."
    return f"{path.removeprefix('cairn ')}: {message.rstrip('.')}{end} See `{path} --help`."
