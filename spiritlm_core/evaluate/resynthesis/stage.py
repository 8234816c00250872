"""The resynthesis check on held-out rows of a lake, as one artifact; and the clips of lakes and folders for it."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.codec import read_mono, to_float32
from spiritlm_core.cores import all_cores
from spiritlm_core.errors import Rejection, SourceError, SpiritLMError
from spiritlm_core.evaluate.clips import AUDIO_INPUT, draw, good_rows, rank, read_clips
from spiritlm_core.evaluate.config import GIVEN, OWN, ResynthesisConfig, ResynthesisStageConfig
from spiritlm_core.evaluate.rendering import write_report
from spiritlm_core.fit.clips import Clip
from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.grouping import in_order
from spiritlm_core.intake.opening import open_uri
from spiritlm_core.intake.recordings import list_items
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.folder import UNIT_ROLES
from spiritlm_core.speech.tokenizer import SpeechTokenizer


def held_out(audio: TableView, config: ResynthesisConfig) -> list[Clip]:
    """Good held-out rows of the `audio` table, those with a transcript first, else drawn and ordered by a hash.

    Raises SpiritLMError: nothing of a fitting length is held out.
    """
    rows = good_rows(audio, "held_out", config.min_seconds, config.max_seconds)
    keys = heapq.nsmallest(config.clips, rows, key=lambda key: _order(key, rows[key]["text"], config.seed))
    if not keys:
        raise SpiritLMError(
            f"no utterance of {config.min_seconds:g} to {config.max_seconds:g} s is held out, so resynthesis cannot be "
            "judged: raise audio.held_out_share, or change resynthesis.min_seconds and max_seconds"
        )
    return read_clips(audio, keys)


def train_rows(audio: TableView, config: ResynthesisConfig) -> list[Clip]:
    """Good train rows, drawn by a hash, up to `config.train_minutes`; none if there are none."""
    rows = good_rows(audio, "train", config.min_seconds, config.max_seconds)
    return read_clips(audio, draw(rows, config.train_minutes, config.seed))


def _order(key: str, text: str | None, seed: int) -> tuple[bool, bytes]:
    return not text, rank(seed, key)


def list_clips(source: str, language: str) -> list[dict[str, Any]]:
    """What a source such as a folder or ``clips.jsonl`` holds, see :func:`spiritlm_core.intake.config.parse_source`.

    Raises SourceError: there is no such source, or nothing in it can be read.
    """
    items = in_order(list_items(parse_source(source), language, StatCache()))
    good = [item for item in items if item["error"] is None]
    if not good:
        reason = f": {items[0]['name']}: {items[0]['error']}" if items else ""
        raise SourceError(f"{source} holds no recording that can be read{reason}")
    return good


def draw_clips(items: Sequence[dict[str, Any]], config: ResynthesisConfig) -> list[Clip]:
    """At most `config.clips` of them, those with a transcript first, drawn and ordered by a hash of their content.

    Raises SourceError: none can be decoded and has a fitting length.
    """
    problems: list[str] = []
    ordered = sorted(items, key=lambda item: _order(item["recording_id"], item["text"], config.seed))
    fitting = (clip for clip in _read(ordered, problems) if config.min_seconds <= clip.seconds <= config.max_seconds)
    if not (clips := list(islice(fitting, config.clips))):
        why = "".join(problems[-1:])
        raise SourceError(f"no recording is {config.min_seconds:g} to {config.max_seconds:g} s long{why}")
    return clips


def train_clips(items: Sequence[dict[str, Any]], judged: Collection[Clip], config: ResynthesisConfig) -> Iterator[Clip]:
    """Other clips than those `judged`, up to `config.train_minutes`, in the order of a hash."""
    taken, seconds = {clip.key for clip in judged}, 0.0
    others = [item for item in items if item["recording_id"] not in taken]
    for clip in _read(sorted(others, key=lambda item: rank(config.seed, item["recording_id"])), []):
        yield clip
        seconds += clip.seconds
        if seconds >= 60 * config.train_minutes:
            return


def _read(items: Iterable[dict[str, Any]], problems: list[str]) -> Iterator[Clip]:
    """Those that can be read, one after the other; why others cannot goes to `problems`."""
    for item in items:
        try:
            yield Clip(item["recording_id"], item["speaker"], item["language"], item["text"], _samples(item))
        except Rejection as error:
            problems.append(f"; {item['name']}: {error}")


def _samples(item: dict[str, Any]) -> NDArray[np.float32]:
    """Raises Rejection."""
    try:
        with open_uri(item["source_uri"]) as file:
            samples = read_mono(file, item["source_uri"], item["channel"])
    except OSError as error:
        raise Rejection(f"cannot be read: {error.strerror or error}") from error
    start, end = (None if second is None else round(second * SAMPLE_RATE) for second in (item["start"], item["end"]))
    return np.asarray(to_float32(samples[start:end]), np.float32)


class ResynthesisStage(ArtifactStage):
    """Judges vocoders on held-out rows of the table ``audio``, whose `text` is what the recogniser is held to.

    Writes ``resynthesis.json`` (every figure), ``resynthesis.md`` (one table) and ``resynthesis.html`` (with players).
    Roles: hubert, quantizer, for Expressive pitch and style, and vocoder if there is one; recogniser and
    speaker_encoder; ``candidate.NAME`` for every given speech tokenizer folder.
    """

    name: ClassVar[str] = "resynthesis"
    about: ClassVar[str] = "audio to units and back, judged on held-out speech"
    version: ClassVar[int] = 1
    outputs: ClassVar[tuple[Output, ...]] = (Output("resynthesis", "resynthesis.html", "resynthesis.html"),)
    inputs: ClassVar[tuple[TableInput, ...]] = (AUDIO_INPUT,)
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: ResynthesisStageConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Judge all systems; see :class:`ArtifactStage`.

        Raises SpiritLMError: nothing is held out, or a system cannot render a clip; ModelReferenceError: A model is
        missing or damaged.
        """
        from spiritlm_core.evaluate.resynthesis.figures import page, table
        from spiritlm_core.evaluate.resynthesis.run import Judges, evaluate_resynthesis
        from spiritlm_core.evaluate.resynthesis.systems import systems_of

        audio = tables["audio"]
        clips = held_out(audio, self.config)
        with all_cores():
            progress(0.0, f"units of train speech, for {len(clips)} held-out clips")
            train = train_rows(audio, self.config)
            systems = list(systems_of(self._tokenizers(), self.config.griffin_lim_iterations, train))
            report = evaluate_resynthesis(clips, systems, self.config, Judges.load(self.models), tell=progress)
        write_report(out, "resynthesis", report.report, table(report.report), page(report.report, report.sounds))
        figures = {result["name"]: result["figures"] for result in report.report["systems"]}
        summary = {name: {"wer": values["wer"], "mcd": values["mcd"]} for name, values in figures.items()}
        return {**report.report["held_out"], "systems": summary}

    def _tokenizers(self) -> Iterator[tuple[str, SpeechTokenizer]]:
        from spiritlm_core.speech.extractor import UnitExtractor

        own = {role: self.models[role] for role in UNIT_ROLES if role in self.models}
        yield OWN, SpeechTokenizer(UnitExtractor(own, precision=self.config.precision), self.models.get("vocoder"))
        for role in sorted(self.models):
            if role.startswith(GIVEN):
                yield role.removeprefix(GIVEN), SpeechTokenizer.from_pretrained(self.models[role])
