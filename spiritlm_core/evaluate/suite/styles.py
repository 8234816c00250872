"""Style preservation: does a continuation keep the sentiment of its prompt, within and across modalities?

The task of arXiv 2402.05755, section 5.2 (speech-text sentiment preservation): a prompt has a known style, the model
continues it in text or in speech, and a classifier that sees the continuation alone says which style that has.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from spiritlm_core.errors import ModelReferenceError, Rejection, SpiritLMError
from spiritlm_core.evaluate.suite.pairs import DIRECTIONS, Direction, Labelled, LabelledTask, content_of
from spiritlm_core.evaluate.suite.task import Bench, Skipped, figure, summed_by, usable
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.metrics.bootstrap import ratio
from spiritlm_core.references.content import check_weights
from spiritlm_core.references.reference import as_reference, resolve
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.tokens.speech import from_string

Judge = Callable[[Sequence[str]], list[str]]
"""The label of each text, or of each string of speech tokens; ``""`` where there is nothing to judge."""

_BATCH = 16


def fitted_text_judge(texts: Sequence[str], labels: Sequence[str]) -> Judge:
    """Logistic regression on TF-IDF of words and of character n-grams, fitted on `texts`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    features = make_union(
        TfidfVectorizer(),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    )
    model = make_pipeline(features, LogisticRegression(C=10, max_iter=2000)).fit(list(texts), list(labels))
    return lambda given: _where_anything(given, lambda rows: model.predict(rows).tolist())


def fitted_speech_judge(speech: Sequence[str], labels: Sequence[str]) -> Judge:
    """Logistic regression on statistics of pitch and style units, and of phonetic ones, fitted on speech tokens."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sizes = _sizes(speech)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(np.stack([speech_features(one, sizes) for one in speech]), list(labels))

    def predict(rows: list[str]) -> list[str]:
        return model.predict(np.stack([speech_features(one, sizes) for one in rows])).tolist()

    return lambda given: _where_anything(given, predict)


def speech_features(tokens: str, sizes: tuple[int, int, int]) -> np.ndarray:
    """Statistics of speech tokens such as ``[St3][Pi1][Hu7]``, float64[sum(sizes) + 3].

    Shares of each unit, mean and spread of pitch, tokens per style token. `sizes` are the classes of HuBERT, pitch and
    style units that are told apart; others are passed over.
    """
    streams = from_string(tokens)
    pitch = np.asarray(streams.pitch if streams.pitch is not None else [], float)
    shares = [_shares(stream, size) for stream, size in zip(_streams(tokens), sizes, strict=True)]
    spread = [pitch.mean(), pitch.std()] if len(pitch) else [0.0, 0.0]
    rate = tokens.count("[Hu") / max(1, tokens.count("[St"))  # one style token a second: phonetic units a second
    return np.concatenate([*shares, spread, [rate]])


def _streams(tokens: str) -> list[np.ndarray]:
    streams = from_string(tokens)
    return [np.asarray([] if one is None else one, int) for one in (streams.hubert, streams.pitch, streams.style)]


def _sizes(speech: Sequence[str]) -> tuple[int, int, int]:
    largest = [[max(stream, default=-1) + 1 for stream in _streams(tokens)] for tokens in speech]
    hubert, pitch, style = (int(max(column)) for column in zip(*largest, strict=True))
    return hubert, pitch, style


def _shares(stream: np.ndarray, size: int) -> np.ndarray:
    counts = np.bincount(stream[stream < size], minlength=size).astype(float)
    return counts / max(1.0, counts.sum())


def _where_anything(given: Sequence[str], predict: Callable[[list[str]], list[str]]) -> list[str]:
    """Predictions for all that is not empty."""
    rows = [one for one in given if one.strip()]
    predicted = iter(predict(rows) if rows else [])
    return [next(predicted) if one.strip() else "" for one in given]


def given_text_judge(reference: str, labels: Sequence[str]) -> Judge:
    """A text classifier of transformers. Raises ModelReferenceError."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    def encoded(tokenizer: Any, rows: list[str]) -> Any:
        return tokenizer(rows, padding=True, truncation=True)

    return _given_judge(reference, labels, AutoModelForSequenceClassification, AutoTokenizer, encoded)


def given_speech_judge(reference: str, labels: Sequence[str], speaker: SpeechTokenizer) -> Judge:
    """An audio classifier of transformers at 16 kHz, which hears what the vocoder makes of speech tokens.

    Raises ModelReferenceError: it cannot be loaded, or there is no vocoder.
    """
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    if not speaker.has_vocoder:
        raise ModelReferenceError(f"{reference} hears waveforms, and the speech tokenizer has no vocoder to make them")

    def heard(extractor: Any, rows: list[str]) -> Any:
        return extractor([speaker.decode(one) for one in rows], sampling_rate=SAMPLE_RATE, padding=True)

    return _given_judge(reference, labels, AutoModelForAudioClassification, AutoFeatureExtractor, heard)


def _given_judge(
    reference: str, labels: Sequence[str], modelling: Any, preparing: Any, prepared: Callable[[Any, list[str]], Any]
) -> Judge:
    """A classifier; a class whose name is a label in any case stands for it, others keep their names."""
    import torch

    folder = resolve(as_reference(reference)).path
    check_weights(folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        prepare, model = (one.from_pretrained(folder, **options) for one in (preparing, modelling))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelReferenceError(f"{folder} is no classifier that transformers loads: {error}") from error
    model.eval()
    known = {label.lower(): label for label in labels}
    names = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    if not known.keys() & {name.lower() for name in names}:
        raise ModelReferenceError(f"{reference} tells apart {', '.join(names)}, the set {', '.join(labels)}")

    @torch.inference_mode()
    def predict(rows: list[str]) -> list[str]:
        parts = (prepared(prepare, rows[i : i + _BATCH]).convert_to_tensors("pt") for i in range(0, len(rows), _BATCH))
        found = (names[i] for part in parts for i in model(**part).logits.argmax(-1).tolist())
        return [known.get(name.lower(), name) for name in found]

    return lambda given: _where_anything(given, predict)


@dataclass(frozen=True)
class StyleTask(LabelledTask):
    """Whether a continuation keeps the style of its prompt."""

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """How often the continuation has the style of the prompt, in each direction."""
        for direction in DIRECTIONS:
            if direction.prefix not in self.kinds or direction.sides not in self.kinds:
                continue
            name = f"{direction.prefix[0].upper()}→{direction.sides[0].upper()}"
            bench.tell(f"{self.name} {name}")
            prompts, skipped = usable(self.test, partial(_prompt, bench=bench, direction=direction))
            try:
                judge = _judge(self, bench, direction.sides)
            except SpiritLMError as problem:
                yield self.measure(name, 0, (), [*skipped, *(Skipped(row.key, str(problem)) for row in prompts)])
                continue
            yield _measure(self, bench, (name, direction.sides), judge, prompts, skipped)


def _prompt(row: Labelled, bench: Bench, direction: Direction) -> tuple[Kind, str]:
    layout, context = bench.spirit.layout, bench.spirit.context
    part = (direction.prefix, content_of(layout, row.side, direction.prefix, bench.heard))
    length = len(layout.prompt([part], direction.sides))
    if length + bench.config.max_new_tokens > context:
        raise Rejection(f"{length} tokens and a continuation do not fit in the context, which holds {context}")
    return part


def _judge(task: StyleTask, bench: Bench, kind: Kind) -> Judge:
    """The classifier of one modality. Raises SpiritLMError."""
    if kind == "text" and bench.config.text_judge:
        return given_text_judge(bench.config.text_judge, task.labels)
    if kind == "speech" and bench.config.speech_judge:
        return given_speech_judge(bench.config.speech_judge, task.labels, bench.spirit.speech_tokenizer)
    contents, labels = _known(task.train, bench, kind)
    if len(set(labels)) < 2:
        raise SpiritLMError("no classifier can be fitted: the train part has not two labels in this modality")
    fit = fitted_text_judge if kind == "text" else fitted_speech_judge
    return fit(contents, labels)


def _known(rows: Sequence[Labelled], bench: Bench, kind: Kind) -> tuple[list[str], list[str]]:
    """Contents and labels of the rows that have this modality."""
    contents, _ = usable(rows, lambda row: content_of(bench.spirit.layout, row.side, kind, bench.heard))
    return list(contents.values()), [row.label for row in contents]


def _measure(
    task: StyleTask,
    bench: Bench,
    asked: tuple[str, Kind],
    judge: Judge,
    prompts: Mapping[Labelled, tuple[Kind, str]],
    skipped: Sequence[Skipped],
) -> dict[str, Any]:
    (name, kind), rows = asked, list(prompts)
    given = _continued(bench, list(prompts.values()), kind)
    said = judge(given)
    right = [float(label == row.label) for label, row in zip(said, rows, strict=True)]
    value = ratio(*summed_by([row.item for row in rows], right), **bench.draws)
    contents, labels = _known(task.test, bench, kind)
    ceiling = float(np.mean([a == b for a, b in zip(judge(contents), labels, strict=True)])) if labels else None
    commonest = Counter(row.label for row in rows).most_common(1)
    most = {"commonest label": commonest[0][1] / len(rows)} if commonest else {}
    shown = figure("style kept", value, chance=1 / max(1, len(task.labels)), trivial=most, ceiling=ceiling)
    answers = [
        {"key": row.key, "label": row.label, "judged": label, "given": content}
        for row, label, content in zip(rows, said, given, strict=True)
    ]
    return task.measure(name, len(rows), [shown], skipped, labels=list(task.labels), answers=answers)


def _continued(bench: Bench, prompts: Sequence[tuple[Kind, str]], kind: Kind) -> list[str]:
    """Text or speech tokens of each continuation, sampled with the seed."""
    config = bench.config
    answers = bench.spirit.generate_batch(
        [[prompt] for prompt in prompts],
        kind,
        batch_size=bench.batch_size,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
    )
    return [answer.text if kind == "text" else answer.tokens for answer in answers]
