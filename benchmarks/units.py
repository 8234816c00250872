"""Fit every unit model on the English prompts, extract all units, and judge them against phones.

    apt-get download asterisk-core-sounds-en-g722 asterisk-core-sounds-en && for p in *.deb; do dpkg -x $p PROMPTS; done
    python benchmarks/units.py PROMPTS [--work DIR] [--json FILE] [--phonetic] [--hubert '{"masked_weight": 1.0}']

Phone labels are a forced alignment of the transcripts by pocketsphinx (its bundled GMM model), which is itself
not exact; purity and PNMI follow HuBERT (arXiv 2106.07447, §V.B) and are compared with k-means on MFCC frames
of the same train clips. The judgement is over every clip with a usable alignment, train rows included.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spiritlm_core.audio.codec import decode_flac, encode_flac, read_waveform
from spiritlm_core.lake.schema import AUDIO, SAMPLE_RATE, table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.units.config import HubertConfig, PitchConfig, QuantizerConfig, StyleConfig, UnitsConfig

QUICKSTART = UnitsConfig(
    hubert=HubertConfig(),
    quantizer=QuantizerConfig(units=100),
    pitch=PitchConfig(max_minutes=5),
    style=StyleConfig(clusters=20, max_minutes=5),
)
Labels = dict[str, list[tuple[str, int, int]]]
report: dict[str, Any] = {"seconds": {}}


@contextmanager
def timed(name: str) -> Iterator[None]:
    wall, before = time.perf_counter(), os.times()
    yield
    after = os.times()
    cpu = after.user + after.system - before.user - before.system
    report["seconds"][name] = {"wall": round(time.perf_counter() - wall, 1), "cpu": round(cpu, 1)}
    print(f"{name:12} {report['seconds'][name]}")


def prompts(root: Path) -> tuple[pa.Table, dict[str, str]]:
    """The audio table of all prompts (every tenth held out) and their transcripts."""
    (folder,) = root.glob("usr/share/asterisk/sounds/en_US_*")
    (listing,) = root.glob("usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
    lines = gzip.decompress(listing.read_bytes()).decode().splitlines()
    texts = dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(";"))
    rows = []
    for number, path in enumerate(sorted(folder.rglob("*.g722"))):
        waveform = read_waveform(path.read_bytes(), path.name)[0].mean(axis=0)
        name = path.relative_to(folder).with_suffix("").as_posix()
        rows.append(
            {
                "utterance_id": name,
                "recording_id": name,
                "duration": len(waveform) / SAMPLE_RATE,
                "speaker": "Allison",
                "split": "held_out" if number % 10 == 0 else "train",
                "audio": encode_flac(waveform),
                "source_uri": path.as_uri(),
            }
        )
    return table_of(rows, AUDIO), texts


def fit(audio: TableView, work: Path, hubert: HubertConfig, *, phonetic: bool) -> dict[str, Path]:
    from spiritlm_core.units.fit_hubert import HubertFit
    from spiritlm_core.units.fit_pitch import PitchFit
    from spiritlm_core.units.fit_quantizer import QuantizerFit
    from spiritlm_core.units.fit_style import StyleFit

    models: dict[str, Path] = {}
    stages = [
        (HubertFit, hubert),
        (QuantizerFit, QUICKSTART.quantizer),
        (PitchFit, QUICKSTART.pitch),
        (StyleFit, QUICKSTART.style),
    ]
    for stage, config in stages[: 2 if phonetic else 4]:
        out = work / stage.name
        out.mkdir(parents=True, exist_ok=True)
        with timed(stage.name):
            built = stage(config, models).build({"audio": audio}, out, work / "work", lambda *_: None)
        report[stage.name] = built
        print(json.dumps(built))
        models[stage.name] = out
    return models


def extract(audio: pa.Table, models: dict[str, Path]) -> pa.Table:
    import torch

    from spiritlm_core.units.stage import UnitsStage

    torch.set_num_threads(1)
    stage = UnitsStage(QUICKSTART, models)
    stage.setup()
    with timed("units"):
        return stage.process(audio.select(list(UnitsStage.inputs[0].columns or ())))


def phones(audio: pa.Table, texts: dict[str, str]) -> Labels:
    """(phone, start, frames) in 10 ms frames of each clip whose words are all in pocketsphinx's dictionary."""
    import pocketsphinx

    decoder, labels = pocketsphinx.Decoder(lm=None, loglevel="FATAL"), {}
    for name, flac in zip(audio["utterance_id"].to_pylist(), audio["audio"].to_pylist(), strict=True):
        words = re.sub(r"[^a-z' ]", " ", texts.get(name, "").lower()).split()
        samples = (decode_flac(flac) * 32767).astype(np.int16)
        if len(samples) < SAMPLE_RATE or "[" in texts.get(name, "[") or not all(map(decoder.lookup_word, words)):
            continue
        if (alignment := _align(decoder, " ".join(words), samples)) is not None:
            labels[name] = [(p.name, p.start, p.duration) for word in alignment for p in word]
    return labels


def _align(decoder: Any, text: str, samples: np.ndarray) -> Any:
    """Two passes, words then phones; None where the decoder finds no path."""
    try:
        decoder.set_align_text(text)
        _decode(decoder, samples)
        if decoder.hyp() is None:
            return None
        decoder.set_alignment()
        _decode(decoder, samples)
        return decoder.get_alignment()
    except RuntimeError:
        return None


def _decode(decoder: Any, samples: np.ndarray) -> None:
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()


def judge(units: dict[str, np.ndarray], labels: Labels) -> dict[str, float]:
    """Purity, PNMI (mutual information over the entropy of the phones), perplexity, share of repeats."""
    pairs = [pair for name in labels for pair in _pairs(units[name], labels[name])]
    _, rows = np.unique([unit for unit, _ in pairs], return_inverse=True)
    _, columns = np.unique([phone for _, phone in pairs], return_inverse=True)
    joint = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(joint, (rows, columns), 1 / len(pairs))
    unit, phone = joint.sum(axis=1), joint.sum(axis=0)
    information = (joint[joint > 0] * np.log(joint[joint > 0] / np.outer(unit, phone)[joint > 0])).sum()
    repeats = np.concatenate([clip[1:] == clip[:-1] for clip in units.values()]).mean()
    return {
        "frames": len(pairs),
        "purity": round(float(joint.max(axis=1).sum()), 3),
        "pnmi": round(float(information / -(phone * np.log(phone)).sum()), 3),
        "perplexity": round(float(np.exp(-(unit * np.log(unit)).sum())), 1),
        "repeats": round(float(repeats), 3),
    }


def _pairs(units: np.ndarray, labels: list[tuple[str, int, int]]) -> Iterator[tuple[int, str]]:
    """Units with the phone at the centre of what they see."""
    centres = (640 * np.arange(len(units)) + 360) / 160
    for phone, start, frames in labels:
        for unit in units[(centres >= start) & (centres < start + frames)]:
            yield int(unit), phone


def mfcc_units(audio: pa.Table) -> dict[str, np.ndarray]:
    import torch

    from spiritlm_core.units.kmeans import fit_kmeans
    from spiritlm_core.units.mfcc import mfcc_25hz

    names = audio["utterance_id"].to_pylist()
    frames = {
        n: mfcc_25hz(torch.from_numpy(decode_flac(a))) for n, a in zip(names, audio["audio"].to_pylist(), strict=True)
    }
    train = [n for n, split in zip(names, audio["split"].to_pylist(), strict=True) if split == "train"]
    kmeans = fit_kmeans(np.concatenate([frames[n] for n in train]), QUICKSTART.quantizer.units, seed=0)
    return {name: kmeans.assign(clip) for name, clip in frames.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.mkdtemp(prefix="units-")))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--phonetic", action="store_true", help="HuBERT and its quantizer only")
    parser.add_argument("--hubert", type=json.loads, default={}, help="fields of HubertConfig to change, as JSON")
    arguments = parser.parse_args()
    audio, texts = prompts(arguments.prompts)
    report["audio_minutes"] = round(sum(audio["duration"].to_pylist()) / 60, 2)
    report["hubert_changes"] = arguments.hubert
    config = HubertConfig.model_validate({**QUICKSTART.hubert.model_dump(), **arguments.hubert})
    models = fit(TableView.of(audio), arguments.work, config, phonetic=arguments.phonetic)
    units = extract(audio, models)
    pq.write_table(units, arguments.work / "units.parquet")
    streams = {s: [np.array(u) for u in units[s].to_pylist() if u is not None] for s in ("hubert", "pitch", "style")}
    report["units"] = {s: {"clips": len(u), "units": sum(map(len, u))} for s, u in streams.items()}
    with timed("phones"):
        labels = phones(audio, texts)
    names = units["utterance_id"].to_pylist()
    report["hubert_units"] = judge(dict(zip(names, map(np.array, units["hubert"].to_pylist()), strict=True)), labels)
    report["mfcc_units"] = judge(mfcc_units(audio), labels)
    print(json.dumps({name: report[name] for name in ("units", "hubert_units", "mfcc_units")}, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
