"""Piper, a neural synthesizer (VITS, Kim et al. 2021, arXiv 2106.06103) for voices in ONNX files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from spiritlm_core.audio.voices.server import Answer
from spiritlm_core.audio.voices.sound import NothingHeardError, Sound

_SEED = 1  # of what the model draws; any


def load(path: str) -> Answer:
    """What answers requests with the keys `text`, `length_scale`, `noise_scale`, `noise_w` and perhaps `speaker`.

    `path` is that of an ``.onnx`` file with its ``.onnx.json`` beside it.
    """
    import onnxruntime
    from piper import PiperConfig, PiperVoice, SynthesisConfig

    onnxruntime.set_seed(_SEED)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # threads would be lost where a process forks
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    config = PiperConfig.from_dict(json.loads(Path(f"{path}.json").read_text(encoding="utf-8")))
    voice = PiperVoice(session=session, config=config)

    def answer(request: dict[str, Any]) -> Sound:
        drawn = {name: float(request[name]) for name in ("length_scale", "noise_scale")}
        speaker = int(request["speaker"]) if "speaker" in request else None
        asked = SynthesisConfig(speaker_id=speaker, noise_w_scale=float(request["noise_w"]), **drawn)
        parts = [part.audio_int16_array for part in voice.synthesize(str(request["text"]), asked)]
        if not parts:
            raise NothingHeardError("nothing is heard")
        return Sound(np.concatenate(parts), config.sample_rate)

    return answer
