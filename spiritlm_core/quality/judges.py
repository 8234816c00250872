"""Models that judge a segment: how good it sounds, which language it is in, whether its transcript is right."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.lake.schema import SAMPLE_RATE, Row

Waveform = NDArray[np.float32]
Judge = Callable[[Waveform, Row], Row]
"""Takes float32[T] at 16 kHz and ``language``, ``text`` and ``text_origin`` of the segment; returns columns."""

_DNSMOS_SECONDS = 9.01
_DNSMOS_SAMPLES = round(_DNSMOS_SECONDS * SAMPLE_RATE)
_DNSMOS = {
    "dnsmos_signal": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_background": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos": (-0.06766283, 1.11546468, 0.04602535),
}
"""In the order of the network's outputs: the polynomials that put them on the scale from 1 to 5."""


def judges(models: Mapping[str, Path]) -> list[Judge]:
    """Load the judges whose models are given, by role: ``dnsmos``, ``language``, ``recogniser``."""
    return [load(models[role]) for role, load in _JUDGES.items() if role in models]


def _dnsmos(path: Path) -> Judge:
    """DNSMOS P.835 (Reddy et al. 2022, arXiv 2110.01763): the mean over windows of 9.01 s, one a second.

    A shorter clip is repeated until it fills one.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def judge(waveform: Waveform, row: Row) -> Row:
        del row
        while len(waveform) < _DNSMOS_SAMPLES:
            waveform = np.concatenate([waveform, waveform])
        windows = np.lib.stride_tricks.sliding_window_view(waveform, _DNSMOS_SAMPLES)[::SAMPLE_RATE]
        count = 1 + int(len(waveform) // SAMPLE_RATE - _DNSMOS_SECONDS)  # as in the published script
        raw = np.concatenate([session.run(None, {"input_1": window[None]})[0] for window in windows[:count]])
        scales = zip(_DNSMOS.items(), raw.T, strict=True)
        return {name: float(np.polyval(scale, values).mean()) for (name, scale), values in scales}

    return judge


def _language(folder: Path) -> Judge:
    """The likeliest language by the first 30 seconds, and how likely a multilingual Whisper finds it."""
    import torch
    from faster_whisper import WhisperModel

    device, precision = ("cuda", "float16") if torch.cuda.is_available() else ("cpu", "int8")
    model: Any = WhisperModel(str(folder), device=device, compute_type=precision, cpu_threads=1, local_files_only=True)

    def judge(waveform: Waveform, row: Row) -> Row:
        del row
        code, probability, _ = model.detect_language(waveform)
        return {"language": code, "language_confidence": probability}

    return judge


def _agreement(folder: Path) -> Judge:
    """Word errors of the transcript that was given, by what a recogniser hears; nothing where none was."""
    from spiritlm_core.evaluate.clips import Recogniser, word_and_character_errors

    recogniser = Recogniser(folder)

    def judge(waveform: Waveform, row: Row) -> Row:
        if row["text_origin"] != "given":
            return {}
        text, language = str(row["text"]), str(row["language"]) if row["language"] else None
        errors, _ = word_and_character_errors([text], [recogniser.hear(waveform, language)], language)
        return {"wer": errors.edits[0] / max(1, errors.length[0])}

    return judge


_JUDGES: dict[str, Callable[[Path], Judge]] = {
    "dnsmos": _dnsmos,
    "language": _language,
    "recogniser": _agreement,
}
