"""What tells the style of a text or of speech: classifiers given by reference, or small ones fitted on a train part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.weights import check_weights
from spiritlm_core.tokens.speech import from_string

if TYPE_CHECKING:
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

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
        labels: list[str] = model.predict(np.stack([speech_features(one, sizes) for one in rows])).tolist()
        return labels

    return lambda given: _where_anything(given, predict)


def speech_features(tokens: str, sizes: tuple[int, int, int]) -> np.ndarray:
    """Statistics of speech tokens: shares of each unit, mean and spread of pitch, tokens per style token.

    Args:
        tokens: such as ``[St3][Pi1][Hu7]``.
        sizes: classes of HuBERT, pitch and style units that are told apart; others are passed over.

    Returns:
        float64[sum(sizes) + 3].
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
    shares: np.ndarray = counts / max(1.0, counts.sum())
    return shares


def _where_anything(given: Sequence[str], predict: Callable[[list[str]], list[str]]) -> list[str]:
    """Predictions for all that is not empty."""
    rows = [one for one in given if one.strip()]
    predicted = iter(predict(rows) if rows else [])
    return [next(predicted) if one.strip() else "" for one in given]


def given_text_judge(reference: str, labels: Sequence[str]) -> Judge:
    """A text classifier of transformers. Raises ModelReferenceError."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = _folder(reference)
    tokenizer, model = _load(folder, AutoTokenizer, AutoModelForSequenceClassification)
    names = _names(model, labels, reference)

    def predict(rows: list[str]) -> list[str]:
        return _classified(model, rows, names, lambda part: tokenizer(part, padding=True, truncation=True))

    return lambda given: _where_anything(given, predict)


def given_speech_judge(reference: str, labels: Sequence[str], speaker: SpeechTokenizer) -> Judge:
    """An audio classifier of transformers at 16 kHz, which hears what the vocoder makes of speech tokens.

    Raises:
        ModelReferenceError: it cannot be loaded, or there is no vocoder.
    """
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    folder = _folder(reference)
    if not speaker.has_vocoder:
        raise ModelReferenceError(f"{reference} hears waveforms, and the speech tokenizer has no vocoder to make them")
    extractor, model = _load(folder, AutoFeatureExtractor, AutoModelForAudioClassification)
    names = _names(model, labels, reference)

    def features(part: list[str]) -> Any:
        return extractor([speaker.decode(one) for one in part], sampling_rate=16_000, padding=True)

    return lambda given: _where_anything(given, lambda rows: _classified(model, rows, names, features))


def _folder(reference: str) -> Path:
    from spiritlm_core.references.reference import as_reference, resolve

    return resolve(as_reference(reference)).path


def _load(folder: Path, preparing: Any, modelling: Any) -> tuple[Any, Any]:
    check_weights(folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        return preparing.from_pretrained(folder, **options), modelling.from_pretrained(folder, **options).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelReferenceError(f"{folder} is no classifier that transformers loads: {error}") from error


def _names(model: Any, labels: Sequence[str], reference: str) -> list[str]:
    """The label of each class of `model` by its name in any case, or the class's own name."""
    known = {label.lower(): label for label in labels}
    names = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    if not known.keys() & {name.lower() for name in names}:
        raise ModelReferenceError(f"{reference} tells apart {', '.join(names)}, the set {', '.join(labels)}")
    return [known.get(name.lower(), name) for name in names]


def _classified(model: Any, rows: list[str], names: list[str], features: Callable[[list[str]], Any]) -> list[str]:
    import torch

    labels: list[str] = []
    with torch.inference_mode():
        for first in range(0, len(rows), _BATCH):
            given = features(rows[first : first + _BATCH]).convert_to_tensors("pt")
            labels += [names[i] for i in model(**given).logits.argmax(-1).tolist()]
    return labels
