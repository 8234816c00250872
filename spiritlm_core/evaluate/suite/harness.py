"""Text tasks through lm-eval (EleutherAI's language model evaluation harness).

lm-eval asks this model, and not one of its own classes: its `hf` class has no place for the marker ``[Text]`` and
cannot load released checkpoints. Here a request is laid out as in the direction ``T`` of the suite.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.suite.task import Bench, figure
from spiritlm_core.lm.generate.fewshot import Judged, common_start, predict, write
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.bootstrap import Estimate, ratio

_MISSING = "text tasks need lm-eval: pip install 'spiritlm-pipeline[text-tasks]'"
_NORMAL = 1.959964  # 97.5 % quantile of the normal distribution


def task_manager(names: Sequence[str], **options: Any) -> Any:
    """The ``TaskManager`` of lm-eval, which knows `names`; `options` are its own.

    Raises SpiritLMError: lm-eval is not installed, or knows no such task or group.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise SpiritLMError(_MISSING) from error
    manager = TaskManager(**options)
    if unknown := [name for name in names if name not in manager.all_tasks]:
        raise SpiritLMError(f"lm-eval knows no task {unknown[0]!r}: see `lm-eval ls tasks`")
    return manager


def run(bench: Bench, tasks: list[str], manager: Any, limit: int | None) -> dict[str, Any]:
    """What lm-eval finds for tasks that it knows by name."""
    from lm_eval.evaluator import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed"))  # leaves the global ones alone
    results: Any = simple_evaluate(
        _text_lm(bench.spirit),
        tasks=tasks,
        task_manager=manager,
        limit=limit,
        num_fewshot=bench.config.lm_eval_shots,
        fewshot_random_seed=bench.config.seed,
        **seeds,
    )
    return dict(results)


def leaves(name: str, results: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, or the task itself."""
    below = results.get("group_subtasks", {}).get(name) or []
    return [leaf for one in below for leaf in leaves(one, results)] or [name]


def figures(name: str, found: Mapping[str, Any], bench: Bench) -> Iterator[dict[str, Any]]:
    """One for each metric; with a bootstrap over questions, or for groups by the standard error that lm-eval gives."""
    results = found.get("results", {}).get(name, {})
    for key, value in results.items():
        metric, comma, _ = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        leaf = next(iter(leaves(name, found)))
        higher = found.get("higher_is_better", {}).get(name, {}).get(metric, True)
        chance = _chance([one for leaf in leaves(name, found) for one in found["samples"].get(leaf, ())], metric)
        if found.get("configs", {}).get(leaf, {}).get("output_type") != "multiple_choice":
            chance = None
        error = results.get(f"{metric}_stderr,{key.partition(',')[2]}")
        estimate = _estimate(float(value), error, found["samples"].get(name, ()), metric, bench)
        yield figure(metric, estimate, chance=chance, lower=not higher)


def _estimate(value: float, error: Any, samples: Sequence[Mapping[str, Any]], metric: str, bench: Bench) -> Estimate:
    each = [one.get(metric) for one in samples]
    if each and all(isinstance(one, int | float) for one in each):
        drawn = ratio(each, [1] * len(each), **bench.draws)  # type: ignore[arg-type]
        if np.isclose(drawn.value, value):
            return drawn
    if isinstance(error, int | float):
        return Estimate(value, value - _NORMAL * error, value + _NORMAL * error)
    return Estimate(value, np.nan, np.nan)


def _chance(samples: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """Guessing evenly among the choices of each question."""
    counts = [len(one["resps"]) for one in samples]
    return float(np.mean([1 / count for count in counts])) if counts and metric in ("acc", "acc_norm") else None


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and texts among the results of a task."""
    return {key: value for key, value in row.items() if isinstance(value, int | float | str)}


def _text_lm(spirit: SpiritLM) -> Any:
    """The model as lm-eval wants it; a class of its own is made here, as lm-eval is imported only if it is used."""
    from lm_eval.api.model import LM

    class TextLM(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            asked = [laid_out(spirit, *request.args) for request in requests]
            return scores(spirit, asked)

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            asked = [laid_out(spirit, "", request.args[0]) for request in requests]
            return [found for found, _ in scores(spirit, asked)]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return [continued(spirit, *request.args) for request in requests]

    return TextLM()


def laid_out(spirit: SpiritLM, context: str, continuation: str) -> Judged:
    """A request as in the direction ``T``; where it is longer than the model's context, the oldest text is left out."""
    given = spirit.layout.prompt([("text", context)] if context.strip() else [], "text")
    whole = spirit.layout.prompt([("text", context + continuation)], "any")
    same, most, head = common_start(given, whole), spirit.context, _head(spirit)
    surplus = max(0, min(len(whole) - most, same - head))
    prompt = [*whole[:head], *whole[head + surplus : same]]
    return Judged(tuple(prompt), tuple(whole[same : same + most - len(prompt)]))


def _head(spirit: SpiritLM) -> int:
    """How many ids stand in front of every text: BOS, if there is one, and ``[Text]``."""
    return len(spirit.layout.prompt([], "text"))


def scores(spirit: SpiritLM, asked: Sequence[Judged]) -> list[tuple[float, bool]]:
    """Log-likelihood in nats of each answer, and whether it is what the model would say; nothing is surely said."""
    predicted = predict(spirit.model, [(*one.prompt, *one.answer) for one in asked])
    starts = [len(one.prompt) - 1 for one in asked]
    return [
        (-float(one.nats[start:].sum()), bool(one.likeliest[start:].all()))
        for one, start in zip(predicted, starts, strict=True)
    ]


def continued(spirit: SpiritLM, context: str, options: Mapping[str, Any]) -> str:
    """What the model says behind `context`, up to the first of the strings of ``until``."""
    most = min(int(options.get("max_gen_toks", 256)), spirit.context // 2)
    ids, head = spirit.layout.prompt([("text", context)], "text"), _head(spirit)
    kept = [*ids[:head], *ids[max(head, len(ids) - (spirit.context - most - head)) :]]
    (answer,) = write(spirit, [kept], "text", most)
    until = options.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        answer = answer.split(stop)[0] if stop else answer
    return answer
