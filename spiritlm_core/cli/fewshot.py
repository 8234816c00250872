"""``spiritlm fewshot``: a task from solved examples in the prompt, on a data set of the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from spiritlm_core.cli.options import DeviceOption, SpeechTokenizerOption, VariantOption
from spiritlm_core.errors import SpiritLMError


def fewshot(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="Template: asr, tts, classification, speech-to-speech, or path of a .yaml file."
        ),
    ],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model; released ones too.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A .parquet or .jsonl file, or a folder of them.")],
    shots: Annotated[int, typer.Option(min=0, help="Solved examples in front of each question.")] = 5,
    questions: Annotated[int, typer.Option(min=1, help="Most held-out rows to ask.")] = 100,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Column of a field of the template. May be repeated."),
    ] = None,
    split_column: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column that says train or test.")] = None,
    held_out: Annotated[float, typer.Option(min=0, max=0.99, help="Held-out share where no column says it.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws of questions and shots, and of intervals.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Prompts in one forward pass.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 200,
    speech_tokenizer: SpeechTokenizerOption = None,
    variant: VariantOption = None,
    device: DeviceOption = None,
    dtype: Annotated[str | None, typer.Option(help="Type of the weights, such as bfloat16.")] = None,
    answers: Annotated[bool, typer.Option("--answers", help="With --json: every question's answer, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask MODEL held-out rows of DATA, each behind solved examples drawn from the train rows.

    Prints word and character error rates (asr), unit error rates (tts, speech-to-speech), or the accuracy of the most
    likely label (classification), each with a 95 % bootstrap interval.
    """
    from spiritlm_core.lm.model.folder import locate

    locate(model, variant)
    from spiritlm_core.finetune.config import DataConfig, SplitConfig
    from spiritlm_core.finetune.fewshot import FewShotConfig, run_few_shot
    from spiritlm_core.finetune.reading import read_rows
    from spiritlm_core.finetune.rows import commonest
    from spiritlm_core.finetune.template import find_template
    from spiritlm_core.intake.statcache import StatCache

    pairs = [item.partition("=") for item in column or []]
    if wrong := [field for field, equals, name in pairs if not (field and equals and name)]:
        raise SpiritLMError(f"--column {wrong[0]}: write FIELD=COLUMN, for example --column audio=path")
    columns = {field: name for field, _, name in pairs}
    template = find_template(task)
    source = DataConfig(
        path=data, columns=columns, split_column=split_column, split=SplitConfig(held_out_share=held_out)
    )
    rows = read_rows(source, template, StatCache())
    config = FewShotConfig(shots=shots, questions=questions, seed=seed, max_new_tokens=max_new_tokens)
    from spiritlm_core.lm.generate.spirit import SpiritLM

    spirit = SpiritLM.from_pretrained(model, device, dtype, variant, speech_tokenizer)
    report = run_few_shot(spirit, template, rows, source.split, config, batch_size=batch)
    result = report.to_dict(answers=answers)
    if report.rejected:
        typer.echo(f"spiritlm: {sum(report.rejected.values())} rows rejected: {commonest(report.rejected)}", err=True)
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _lines(result))


def _lines(result: dict[str, Any]) -> str:
    """One figure a line: its name, a tab, its value, and the interval if it has one."""
    lines = []
    for name, value in result.items():
        if name.endswith(("_low", "_high")) or isinstance(value, list | dict):
            continue
        low, high = result.get(f"{name}_low"), result.get(f"{name}_high")
        lines.append(f"{name}\t{value}" + (f"\t[{low}, {high}]" if low is not None else ""))
    return "\n".join(lines)
