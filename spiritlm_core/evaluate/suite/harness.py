"""Text tasks through lm-eval (EleutherAI's language model evaluation harness).

lm-eval asks this model, and not one of its own classes: its `hf` class has no place for the marker ``[Text]`` and
cannot load released checkpoints. Here a request is laid out as in the direction ``T`` of the suite.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.suite.choices import ChoiceTask
from spiritlm_core.evaluate.suite.likelihood import Judged
from spiritlm_core.evaluate.suite.task import Bench, Skipped, figure, measure
from spiritlm_core.metrics.bootstrap import Estimate, ratio

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM

_MISSING = "text tasks need lm-eval: pip install 'spiritlm-pipeline[text-tasks]'"
_NORMAL = 1.959964  # 97.5 % quantile of the normal distribution


def measure_choices(task: ChoiceTask, bench: Bench) -> Iterator[dict[str, Any]]:
    """A task made of local questions; without lm-eval each is skipped with the reason."""
    bench.tell(f"{task.name} T")
    try:
        found = _evaluate_local(task, bench) if task.questions else {}
    except ModuleNotFoundError:
        yield measure(task, "T", 0, (), [Skipped(one.key, _MISSING) for one in task.questions])
        return
    yield measure(task, "T", len(task.questions), _figures(task.name, found, bench), ())


def task_manager(names: Sequence[str], **options: Any) -> Any:
    """The ``TaskManager`` of lm-eval, which knows `names`; `options` are its own.

    Raises:
        SpiritLMError: lm-eval is not installed, or knows no such task or group.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise SpiritLMError(_MISSING) from error
    manager = TaskManager(**options)
    if unknown := [name for name in names if name not in manager.all_tasks]:
        raise SpiritLMError(f"lm-eval knows no task {unknown[0]!r}: see `lm-eval ls tasks`")
    return manager


def measure_named(bench: Bench, names: Sequence[str], limit: int | None, manager: Any) -> Iterator[dict[str, Any]]:
    """Tasks and groups of tasks that lm-eval knows by name; it fetches their data from the hub.

    Args:
        bench: the model.
        names: of tasks and groups.
        limit: most questions of each task.
        manager: of :func:`task_manager`.

    Raises:
        SpiritLMError: lm-eval cannot fetch the data of a task, or run it.
    """
    for name in names:  # one by one: lm-eval refuses a group beside a task of it
        bench.tell(f"lm-eval: {name}")
        try:
            found = _evaluate(bench, [name], manager, limit=limit)
        except (OSError, ValueError, RuntimeError) as error:
            raise SpiritLMError(f"lm-eval cannot run {name}: {error}") from error
        leaves = _leaves(name, found)
        items = sum(len(found["samples"].get(leaf, ())) for leaf in leaves)
        parts = {leaf: found["results"][leaf] for leaf in leaves if leaf != name}
        task = ChoiceTask(name, "lm-eval", Path(), ())
        yield measure(task, "T", items, _figures(name, found, bench), (), subtasks=_plain(parts))


def _evaluate_local(task: ChoiceTask, bench: Bench) -> dict[str, Any]:
    """The questions as a task of lm-eval: a JSON file, and a configuration that says how it is read."""
    import json

    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory(prefix="spiritlm-lm-eval-") as folder:
        data = Path(folder) / "test.jsonl"
        lines = [json.dumps(one.to_dict(), ensure_ascii=False) + "\n" for one in task.questions]
        data.write_text("".join(lines), encoding="utf-8")
        settings = {
            "task": task.name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(Path(folder) / "cache")},
            "output_type": "multiple_choice",
            "test_split": "test",
            "doc_to_text": "question",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
        return _evaluate(bench, [settings], TaskManager(include_defaults=False))


def _evaluate(bench: Bench, tasks: list[Any], manager: Any, limit: int | None = None) -> dict[str, Any]:
    from lm_eval.evaluator import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed"))  # leaves the global ones alone
    found: Any = simple_evaluate(
        _text_lm(bench.spirit, bench.batch_size),
        tasks=tasks,
        task_manager=manager,
        limit=limit,
        num_fewshot=bench.config.lm_eval_shots,
        fewshot_random_seed=bench.config.seed,
        **seeds,
    )
    return dict(found)


def _leaves(name: str, found: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, or the task itself."""
    below = found.get("group_subtasks", {}).get(name) or []
    return [leaf for one in below for leaf in _leaves(one, found)] or [name]


def _figures(name: str, found: Mapping[str, Any], bench: Bench) -> Iterator[dict[str, Any]]:
    """One for each metric; with a bootstrap over questions, or for groups by the standard error that lm-eval gives."""
    results = found.get("results", {}).get(name, {})
    for key, value in results.items():
        metric, comma, _ = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        leaf = next(iter(_leaves(name, found)))
        higher = found.get("higher_is_better", {}).get(name, {}).get(metric, True)
        chance = _chance([one for leaf in _leaves(name, found) for one in found["samples"].get(leaf, ())], metric)
        if found.get("configs", {}).get(leaf, {}).get("output_type") != "multiple_choice":
            chance = None
        error = results.get(f"{metric}_stderr,{key.partition(',')[2]}")
        estimate = _estimate(float(value), error, found["samples"].get(name, ()), metric, bench)
        yield figure(metric, estimate, chance=chance, lower=not higher)


def _estimate(value: float, error: Any, samples: Sequence[Mapping[str, Any]], metric: str, bench: Bench) -> Estimate:
    each = [one.get(metric) for one in samples]
    if each and all(isinstance(one, int | float) for one in each):
        drawn = ratio(each, [1] * len(each), samples=bench.config.bootstrap_samples, seed=bench.config.seed)  # type: ignore[arg-type]
        if np.isclose(drawn.value, value):
            return drawn
    if isinstance(error, int | float):
        return Estimate(value, value - _NORMAL * error, value + _NORMAL * error)
    return Estimate(value, np.nan, np.nan)


def _chance(samples: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """Guessing evenly among the choices of each question."""
    counts = [len(one["resps"]) for one in samples]
    return float(np.mean([1 / count for count in counts])) if counts and metric in ("acc", "acc_norm") else None


def _plain(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: value for key, value in row.items() if isinstance(value, int | float | str)}
        for name, row in results.items()
    }


def _text_lm(spirit: SpiritLM, batch_size: int) -> Any:
    """The model as lm-eval wants it; a class of its own is made here, as lm-eval is imported only if it is used."""
    from lm_eval.api.model import LM

    class TextLM(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            asked = [laid_out(spirit, *request.args) for request in requests]
            return scores(spirit, asked, batch_size)

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            asked = [laid_out(spirit, "", request.args[0]) for request in requests]
            return [found for found, _ in scores(spirit, asked, batch_size)]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return [continued(spirit, *request.args) for request in requests]

    return TextLM()


def laid_out(spirit: SpiritLM, context: str, continuation: str) -> Judged:
    """A request as in the direction ``T``; where it is longer than the model's context, the oldest text is left out."""
    given = spirit.layout.prompt([("text", context)] if context.strip() else [], "text")
    whole = spirit.layout.prompt([("text", context + continuation)], "any")
    same = next((i for i, (a, b) in enumerate(zip(given, whole, strict=False)) if a != b), min(len(given), len(whole)))
    most, head = int(spirit.model.config.max_position_embeddings), _head(spirit)
    surplus = max(0, min(len(whole) - most, same - head))
    prompt = [*whole[:head], *whole[head + surplus : same]]
    return Judged(tuple(prompt), tuple(whole[same : same + most - len(prompt)]))


def _head(spirit: SpiritLM) -> int:
    """How many ids stand in front of every text: BOS, if there is one, and ``[Text]``."""
    return len(spirit.layout.prompt([], "text"))


def scores(spirit: SpiritLM, asked: Sequence[Judged], batch_size: int) -> list[tuple[float, bool]]:
    """Log-likelihood in nats of each answer, and whether it is what the model would say; nothing is surely said."""
    import torch

    found: list[tuple[float, bool]] = [(0.0, True)] * len(asked)
    order = sorted((i for i in range(len(asked)) if asked[i].answer), key=lambda i: -_length(asked[i]))
    device = next(spirit.model.parameters()).device
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            members = order[first : first + batch_size]
            longest = _length(asked[members[0]])
            rows = [[*asked[i].prompt, *asked[i].answer] for i in members]
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)  # behind: not seen
            logits = spirit.model(input_ids=ids).logits
            for i, row, own in zip(members, rows, logits, strict=True):
                start = len(asked[i].prompt)
                likely = own[start - 1 : len(row) - 1].double().log_softmax(-1).cpu()
                answer = torch.tensor(row[start:])
                total = likely.gather(1, answer[:, None]).sum().item()
                found[i] = (float(total), bool((likely.argmax(-1) == answer).all()))
    return found


def _length(one: Judged) -> int:
    return len(one.prompt) + len(one.answer)


def continued(spirit: SpiritLM, context: str, options: Mapping[str, Any]) -> str:
    """What the model says behind `context`, up to the first of the strings of ``until``."""
    from spiritlm_core.finetune.answers import continue_prompts

    room = int(spirit.model.config.max_position_embeddings)
    most = min(int(options.get("max_gen_toks", 256)), room // 2)
    ids, head = spirit.layout.prompt([("text", context)], "text"), _head(spirit)
    kept = [*ids[:head], *ids[max(head, len(ids) - (room - most - head)) :]]
    (answer,) = continue_prompts(spirit, [kept], "text", most)
    until = options.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        answer = answer.split(stop)[0] if stop else answer
    return answer
