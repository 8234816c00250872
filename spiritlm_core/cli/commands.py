"""Every subcommand of ``spiritlm``: one line each, and its module is named, not imported.

A command is a function called as the last word of its name (``-`` becomes ``_``) in the module that the line names.
``registry`` loads it when it is called or listed, so that the core can name commands of a checkout that may be absent.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """Where one subcommand is found."""

    name: str
    """The words after ``spiritlm``; the first of two is a key of `GROUPS`."""
    module: str
    panel: str
    """The heading under which ``spiritlm --help`` lists it."""


class Group(NamedTuple):
    """A word that has subcommands of its own."""

    help: str
    otherwise: str = ""
    """The subcommand that is meant where the folder of a model stands in the place of one."""


PIPELINE, MODELS, LAKE = "The pipeline", "Models", "The lake"

COMMANDS = (
    Command("run", "flows.cli.run", PIPELINE),
    Command("plan", "flows.cli.plan", PIPELINE),
    Command("diff", "flows.cli.diff", PIPELINE),
    Command("recipes", "flows.cli.recipes", PIPELINE),
    Command("status", "flows.cli.status", PIPELINE),
    Command("ui", "flows.cli.ui", PIPELINE),
    Command("fit units", "flows.cli.fit", PIPELINE),
    Command("fit vocoder", "flows.cli.fit", PIPELINE),
    Command("corpus preview", "flows.cli.corpus", PIPELINE),
    Command("corpus export", "flows.cli.corpus", PIPELINE),
    Command("finetune", "flows.cli.finetune", PIPELINE),
    Command("evaluate suite", "spiritlm_core.cli.suite", MODELS),
    Command("evaluate build-suite", "spiritlm_core.cli.suite", MODELS),
    Command("evaluate units", "flows.cli.evaluate", MODELS),
    Command("evaluate resynthesis", "flows.cli.resynthesis", MODELS),
    Command("fewshot", "spiritlm_core.cli.fewshot", MODELS),
    Command("generate", "spiritlm_core.cli.generate", MODELS),
    Command("transcribe", "spiritlm_core.cli.transcribe", MODELS),
    Command("say", "spiritlm_core.cli.say", MODELS),
    Command("classify", "spiritlm_core.cli.classify", MODELS),
    Command("tokenize", "spiritlm_core.cli.tokenize", MODELS),
    Command("resynthesize", "spiritlm_core.cli.resynthesize", MODELS),
    Command("serve", "spiritlm_core.cli.serve", MODELS),
    Command("import-checkpoints", "spiritlm_core.cli.import_checkpoints", MODELS),
    Command("lake ls", "spiritlm_core.cli.lake", LAKE),
    Command("lake show", "spiritlm_core.cli.lake", LAKE),
    Command("lake verify", "spiritlm_core.cli.lake", LAKE),
    Command("lake gc", "spiritlm_core.cli.lake", LAKE),
)

GROUPS = {
    "fit": Group("Fit models on recordings, without the rest of the pipeline."),
    "corpus": Group("Look at the training sequences, or write them for other trainers."),
    "evaluate": Group(
        "Judge models, and parts of the pipeline on held-out recordings. `evaluate MODEL` is `evaluate suite MODEL`.",
        otherwise="suite",
    ),
    "lake": Group("Look at the lake's tables, check every byte, drop what is not needed."),
}
