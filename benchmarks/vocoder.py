"""Speed of vocoders against a HiFi-GAN of the released size, and what they sound like.

    python benchmarks/vocoder.py [--model NAME=FOLDER]… [--clips SOURCE] [--limit 20] [--seconds 10] [--json FILE]

Every generator of `VocoderFitConfig` is timed with random weights, in turn, on the same units and on all cores; the
baseline has the layers of the released vocoders. FOLDER is a speech tokenizer with a vocoder (`spiritlm fit vocoder
--out FOLDER`), timed as well. With --clips (a folder, clips.jsonl, librispeech:PATH, …) it is judged on these, too:
word errors and mel-cepstral distortion stand beside its speed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spiritlm_core.cores import core_count
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.vocoder.fit_config import SIZES, VocoderFitConfig
from spiritlm_core.speech.vocoder.model import VocoderModel
from spiritlm_core.speech.vocoder.vocoder import Vocoder
from spiritlm_core.tokens.speech import Streams

STREAMS = {"hubert": 500, "pitch": 64, "style": 100}
BASELINE = "hifigan base"
SHORT = 2  # seconds, an answer's first piece


def random_vocoder(kind: str, size: str) -> Vocoder:
    fit = VocoderFitConfig.model_validate({"size": size, "generator": {"kind": kind}})
    torch.manual_seed(0)
    return Vocoder(VocoderModel(fit.architecture(STREAMS, (), 0)).eval())


def units(vocoder: Vocoder, frames: int) -> Streams:
    draw = np.random.default_rng(0)
    sizes = vocoder.config.embeddings
    rows = {name: draw.integers(0, sizes.get(name, 1), frames) for name in ("units", "pitch", "style")}
    return Streams(rows["units"], rows["pitch"], rows["style"])


def times(vocoders: dict[str, Vocoder], seconds: float, rounds: int) -> dict[str, float]:
    """Median seconds to make so much speech. Taken in turn, so that what else the machine does hits all alike."""
    frames = round(seconds * 16_000 / FRAME)
    given = {name: units(vocoder, frames) for name, vocoder in vocoders.items()}
    found: dict[str, list[float]] = {name: [] for name in vocoders}
    for turn in range(rounds + 1):
        for name, vocoder in vocoders.items():
            began = time.perf_counter()
            vocoder.decode(given[name], predict_durations=False)
            if turn:  # the first one warms up
                found[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in found.items()}


def judged(models: dict[str, Path], source: str, limit: int) -> list[dict[str, Any]]:
    from spiritlm_core.evaluate.resynthesis.clips import draw_clips, list_clips
    from spiritlm_core.evaluate.resynthesis.config import ResynthesisConfig
    from spiritlm_core.evaluate.resynthesis.griffin_lim import MelInverter
    from spiritlm_core.evaluate.resynthesis.run import Judges, evaluate_resynthesis
    from spiritlm_core.evaluate.resynthesis.systems import references, tokenizer_systems
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

    config = ResynthesisConfig(clips=limit)
    systems = references(MelInverter(config.griffin_lim_iterations))[:1]
    for name, folder in models.items():
        systems += tokenizer_systems(name, SpeechTokenizer.from_pretrained(folder))
    clips = draw_clips(list_clips(source, "en"), config)
    report = evaluate_resynthesis(clips, systems, config, Judges.fetch(config)).report
    rows: list[dict[str, Any]] = report["systems"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--clips", metavar="SOURCE")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(core_count())
    models = {name: Path(folder) for name, _, folder in (model.partition("=") for model in given.model)}
    vocoders = {f"{kind} {size}": random_vocoder(kind, size) for kind in ("istft", "hifigan") for size in SIZES}
    vocoders |= {name: Vocoder.load(folder / "vocoder") for name, folder in models.items()}
    rows = report(vocoders, times(vocoders, given.seconds, given.rounds), given.seconds)
    short = times(vocoders, SHORT, given.rounds)
    print(f"\n{SHORT} s at once: " + ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in short.items()))
    quality = judged(models, given.clips, given.limit) if given.clips else []
    for row in quality:
        print(json.dumps(row, ensure_ascii=False))
    if given.json:
        given.json.write_text(json.dumps({"speed": rows, "quality": quality}, indent=1) + "\n", encoding="utf-8")


def report(vocoders: dict[str, Vocoder], found: dict[str, float], seconds: float) -> list[dict[str, Any]]:
    print(f"{seconds:.0f} s of speech on {torch.get_num_threads()} threads\n")
    print(f"{'vocoder':<16} {'million':>8} {'seconds':>8} {'x real time':>12} {'vs ' + BASELINE:>16}")
    rows = []
    for name, took in found.items():
        millions = sum(p.numel() for p in vocoders[name].model.generator.parameters()) / 1e6
        ratio = found[BASELINE] / took
        rows.append({"vocoder": name, "millions": millions, "seconds": took, "speed_up": ratio})
        print(f"{name:<16} {millions:8.1f} {took:8.3f} {seconds / took:12.1f} {ratio:15.1f}x")
    return rows


if __name__ == "__main__":
    main()
