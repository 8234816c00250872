"""Every subcommand of ``spiritlm``: one line each, and its module is named, not imported.

A command is a function called as the last word of its name (``-`` becomes ``_``) in the module that the line names.
It is loaded when it is called, so that the core can name commands of a checkout that may be absent; a list of commands
takes their docstrings from the source, so that ``--help`` is quick whatever they import.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from spiritlm_core.errors import SpiritLMError

LOADING_SECONDS = 2.0


class Command(NamedTuple):
    """Where one subcommand is found."""

    name: str  # the words after ``spiritlm``; the first of two is a key of `GROUPS`
    module: str
    panel: str  # the heading under which ``spiritlm --help`` lists it


class Group(NamedTuple):
    """A word that has subcommands of its own."""

    help: str
    otherwise: str = ""  # the subcommand that is meant where the folder of a model stands in the place of one


PIPELINE, MODELS, LAKE = "The pipeline", "Models", "The lake"

COMMANDS = (
    Command("run", "flows.cli.run", PIPELINE),
    Command("plan", "flows.cli.plan", PIPELINE),
    Command("diff", "flows.cli.plan", PIPELINE),
    Command("recipes", "flows.cli.recipes", PIPELINE),
    Command("status", "flows.cli.status", PIPELINE),
    Command("ui", "flows.cli.status", PIPELINE),
    Command("alerts", "flows.cli.alerts", PIPELINE),
    Command("fit units", "flows.cli.run", PIPELINE),
    Command("fit vocoder", "flows.cli.run", PIPELINE),
    Command("corpus preview", "flows.cli.corpus", PIPELINE),
    Command("corpus export", "flows.cli.corpus", PIPELINE),
    Command("finetune", "flows.cli.run", PIPELINE),
    Command("evaluate suite", "spiritlm_core.cli.evaluate", MODELS),
    Command("evaluate build-suite", "spiritlm_core.cli.evaluate", MODELS),
    Command("evaluate units", "flows.cli.evaluate", MODELS),
    Command("evaluate resynthesis", "flows.cli.evaluate", MODELS),
    Command("fewshot", "spiritlm_core.cli.evaluate", MODELS),
    Command("generate", "spiritlm_core.cli.generate", MODELS),
    Command("transcribe", "spiritlm_core.cli.ask", MODELS),
    Command("say", "spiritlm_core.cli.ask", MODELS),
    Command("classify", "spiritlm_core.cli.ask", MODELS),
    Command("align", "spiritlm_core.cli.align", MODELS),
    Command("tokenize", "spiritlm_core.cli.speech", MODELS),
    Command("resynthesize", "spiritlm_core.cli.speech", MODELS),
    Command("serve", "spiritlm_core.cli.serve", MODELS),
    Command("publish", "spiritlm_core.cli.publish", MODELS),
    Command("export gguf", "spiritlm_core.cli.export", MODELS),
    Command("export onnx", "spiritlm_core.cli.export", MODELS),
    Command("import-checkpoints", "spiritlm_core.cli.speech", MODELS),
    Command("explore", "spiritlm_core.cli.explore", LAKE),
    Command("lake du", "spiritlm_core.cli.lake", LAKE),
    Command("lake show", "spiritlm_core.cli.lake", LAKE),
    Command("lake verify", "spiritlm_core.cli.lake", LAKE),
    Command("lake gc", "spiritlm_core.cli.lake", LAKE),
    Command("forget", "flows.cli.lineage", LAKE),
    Command("lineage", "flows.cli.lineage", LAKE),
)

GROUPS = {
    "fit": Group("Fit models on recordings, without the rest of the pipeline."),
    "corpus": Group("Look at the training sequences, or write them for other trainers."),
    "evaluate": Group(
        "Judge models, and parts of the pipeline on held-out recordings. `evaluate MODEL` is `evaluate suite MODEL`.",
        otherwise="suite",
    ),
    "export": Group("Write models for other runtimes."),
    "lake": Group("Look at the lake's tables, check every byte, drop what is not needed."),
}


ABSENT = "Needs a checkout of the repository."
CHECKOUT = (
    "needs a checkout of the repository: this package alone uses models. In a checkout, `make setup` or "
    "`pip install -e '.[all]'` installs the pipeline"
)


class Commands(Mapping[str, Any]):
    """The commands below a word of `GROUPS`, or all: name → what click runs, imported when it is looked up.

    Those that are `listed` are not imported, and can only say what they do.
    """

    def __init__(self, group: str = "", *, listed: bool = False) -> None:
        self._make = _listed if listed else _command
        start = f"{group} " if group else ""
        self._lines = {line.name.removeprefix(start): line for line in COMMANDS if line.name.startswith(start)}
        self._names = list(dict.fromkeys(name.split(" ")[0] for name in self._lines))

    def __getitem__(self, name: str) -> Any:
        """Import the command. Raises KeyError where there is none of this name."""
        if name not in self._names:
            raise KeyError(name)
        return self._make(self._lines[name]) if name in self._lines else _group(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _PlainFlags:
    """What has flags: help shows no type behind them, as they take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, flags without a type."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for flag in (param for param in params if getattr(param, "is_bool_flag", False)):
            flag.metavar = ""
        return params


class SpiritCommand(_PlainFlags, TyperCommand):
    """One subcommand."""


class Root(_PlainFlags, TyperGroup):
    """``spiritlm`` itself: its subcommands are those of the registry."""

    group = ""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands(self.group)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names alone: Typer would look each of them up."""
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Say what each does, without loading any."""
        self.commands = Commands(self.group, listed=True)  # type: ignore[assignment]
        super().format_help(ctx, formatter)


class _Below(Root):
    """One word of `GROUPS`."""

    def __init__(self, *, name: str, **settings: Any) -> None:
        self.group = name
        super().__init__(name=name, **settings)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As ever, but for a folder, which is a model's, or what is asked as one, in the place of a command.

        Raises SpiritLMError: it is neither, nor nearly one.
        """
        otherwise = GROUPS[str(self.name)].otherwise
        if not (otherwise and args and args[0] not in self.commands):
            return super().resolve_command(ctx, args)
        if not (_is_model(args) or args[0].startswith("-") or get_close_matches(args[0], self.commands)):
            raise SpiritLMError(
                f"there is no folder {args[0]}, and no command of this name: `spiritlm {self.name} MODEL` takes the "
                f"folder of a model, and the commands are {', '.join(self.commands)}"
            )
        return super().resolve_command(ctx, [otherwise, *args] if _is_model(args) else args)


def _is_model(args: list[str]) -> bool:
    options = {arg.partition("=")[0] for arg in args}
    return "/" in args[0] or Path(args[0]).is_dir() or not options.isdisjoint(("--suite", "--task", "--lm-eval"))


def _group(name: str) -> Any:
    panel = next(line.panel for line in COMMANDS if line.name.startswith(f"{name} "))
    group = typer.main.get_group(typer.Typer(name=name, cls=_Below, help=GROUPS[name].help, no_args_is_help=True))
    group.rich_help_panel = panel
    return group


def _command(line: Command) -> Any:
    name = line.name.split(" ")[-1]
    app = typer.Typer(add_completion=False)
    loaded = Event()
    Thread(target=_say_that_it_loads, args=(line.name, loaded), daemon=True).start()
    try:
        module = import_module(line.module)
    except ModuleNotFoundError as error:
        if error.name not in ("flows", "tasks"):
            raise
        anything = {"ignore_unknown_options": True, "allow_extra_args": True}
        app.command(name, help=ABSENT, context_settings=anything)(_absent(line.name))
    else:
        cls, function = getattr(module, "COMMAND_CLASS", SpiritCommand), getattr(module, _function(line))
        app.command(name, help=_unwrapped(function.__doc__ or ""), cls=cls)(spread(function))
    finally:
        loaded.set()
    return typer.main.get_command(app)


def spread(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as Typer takes it: a parameter that is a dataclass has become an option for each of its fields."""
    taken = inspect.signature(function, eval_str=True).parameters.values()
    groups: dict[str, Any] = {one.name: one.annotation for one in taken if is_dataclass(one.annotation)}

    def called(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        function(**values)

    fielded = {name: inspect.signature(group, eval_str=True).parameters.values() for name, group in groups.items()}
    options = [option for one in taken for option in fielded.get(one.name, [one])]
    named = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    called.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    return called


def _say_that_it_loads(name: str, loaded: Event) -> None:
    """Say now and then that a command is being imported, which takes long on a busy machine alone."""
    while not loaded.wait(LOADING_SECONDS):
        typer.echo(f"spiritlm: loading {name} …", err=True)


def _listed(line: Command) -> Any:
    """A command that is not loaded, as lists show it."""
    try:
        about = _docstrings(line.module)[_function(line)]
    except ModuleNotFoundError:
        about = ABSENT
    return TyperCommand(line.name.split(" ")[-1], help=_unwrapped(about), rich_help_panel=line.panel)


@cache
def _docstrings(module: str) -> dict[str, str]:
    """What the functions of a module do, by name, read from its source."""
    spec = find_spec(module)
    source = spec and spec.loader and spec.loader.get_source(module)  # type: ignore[attr-defined]
    functions = [node for node in ast.parse(source or "").body if isinstance(node, ast.FunctionDef)]
    return {function.name: ast.get_docstring(function) or "" for function in functions}


def _function(line: Command) -> str:
    return line.name.split(" ")[-1].replace("-", "_")


def _unwrapped(docstring: str) -> str:
    """Each paragraph on one line: Typer would keep the ends of its lines where a terminal has others."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _absent(name: str) -> Any:
    """What stands in for a command of the pipeline where only the package is installed."""

    def explain() -> None:
        raise SpiritLMError(f"spiritlm {name} {CHECKOUT}")

    return explain
