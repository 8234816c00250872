"""The stage `aligner`: a small CTC alignment model fitted on the corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from spiritlm_core.align import teacher
from spiritlm_core.align.config import AlignerFitConfig
from spiritlm_core.align.teacher import Taught, Utterance, characters_of, labels_of, spikes_of
from spiritlm_core.align.whisperx import UNFITTED, Aligner, Transcriber, prepare
from spiritlm_core.cores import all_cores, core_count, large_products
from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.fit.checkpoints import Checkpoint
from spiritlm_core.lake.stage import ArtifactStage, Progress, Resources, TableInput, noting, within
from spiritlm_core.lake.view import TableView

if TYPE_CHECKING:
    from spiritlm_core.align.ctc import CTCAligner
    from spiritlm_core.align.training import Item

_TAUGHT_SHARE = 0.25  # of the work: the teacher comes first, then the training
_FOR_DELAY = 160  # utterances; the delays of single ones lie 100 ms apart
_SHORT = 6.0  # seconds


class AlignerFit(ArtifactStage):
    """Fits an aligner on transcribed utterances of the train split.

    Where pocketsphinx can say when sounds begin, the model learns to put its spikes there; elsewhere CTC finds
    the alignment by itself (flat start) and the constant delay of its spikes is measured and removed. Without
    transcripts the optional model ``"asr"`` (faster-whisper) writes them first. With too little speech
    a placeholder is written, and the words stage interpolates.
    """

    config: AlignerFitConfig
    name: ClassVar[str] = "aligner"
    about: ClassVar[str] = "alignment model fitted on the corpus"
    version: ClassVar[int] = 2
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput(
            "audio",
            ("utterance_id", "split", "language", "duration", "text", "audio", "reject_stage", "reject_reason"),
        ),
    )
    pinned: ClassVar[bool] = True
    resources: ClassVar[Resources] = Resources(num_cpus=2)

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Write ``config.json`` and ``model.safetensors``; see :class:`ArtifactStage`."""
        audio = tables["audio"]
        language = teacher.main_language(audio)
        utterances = self._utterances(audio, language, work, progress)
        seconds = teacher.seconds_of(utterances)
        summary: dict[str, Any] = {"language": language, "utterances": len(utterances), "minutes": seconds / 60}
        if not utterances or seconds < self.config.least_minutes * 60:
            _write_placeholder(out, language)
            return {**summary, "fitted": False}
        taught = self._taught(utterances, language, work, progress)
        prepare()
        with all_cores(), large_products():
            summary |= self._fit(utterances, taught, language, out, work, progress)
        return {**summary, "taught_utterances": sum(times is not None for times in taught), "fitted": True}

    def _utterances(self, audio: TableView, language: str, work: Path, progress: Progress) -> list[Utterance]:
        settings = self.config
        chosen = teacher.choose(
            audio, language, minutes=settings.minutes, longest=settings.longest_seconds, transcribed=True
        )
        if sum(chosen.values()) >= settings.least_minutes * 60 or "asr" not in self.models:
            return teacher.load(audio, chosen, language)
        minutes = settings.asr_minutes
        chosen = teacher.choose(audio, language, minutes=minutes, longest=settings.longest_seconds, transcribed=False)
        return self._recognised(teacher.load(audio, chosen, language), language, work, progress)

    def _recognised(
        self, utterances: list[Utterance], language: str, work: Path, progress: Progress
    ) -> list[Utterance]:
        """The utterances with the words that the recogniser heard; those without any are left out."""
        note = Checkpoint(work / "recognised.pt")
        texts: dict[str, str] = note.load(noting(progress)) or {}
        recogniser = Transcriber(self.models["asr"])
        for index, utterance in enumerate(utterances):
            if utterance.key not in texts:
                texts[utterance.key] = _transcript(recogniser, utterance, language)
            if index % 16 == 0 or index + 1 == len(utterances):
                note.save(texts)
                progress(0.0, f"transcribing {index + 1} of {len(utterances)}")
        heard = [Utterance(u.key, teacher.spoken(texts[u.key], language), u.waveform) for u in utterances]
        return [utterance for utterance in heard if utterance.words]

    def _taught(
        self, utterances: Sequence[Utterance], language: str, work: Path, progress: Progress
    ) -> list[list[Taught] | None]:
        """The teacher's times of every utterance; None where it has none or was not asked."""
        if not self._has_teacher(language):
            return [None] * len(utterances)
        note = Checkpoint(work / "taught.pt")
        known = note.load(noting(progress))
        if known is None:
            asked = _first_minutes(utterances, self.config.taught_minutes)
            report = within(progress, 0, _TAUGHT_SHARE)
            answers = teacher.teach([(u.waveform, u.words) for u in asked], core_count(), report)
            # a checkpoint holds plain values alone
            known = {u.key: times and [tuple(time) for time in times] for u, times in zip(asked, answers, strict=True)}
            note.save(known)
        noted = (known.get(utterance.key) for utterance in utterances)
        return [times and [Taught(*time) for time in times] for times in noted]

    def _has_teacher(self, language: str) -> bool:
        wanted = self.config.teacher
        if wanted == "pocketsphinx" and not teacher.available(language):
            raise SpiritLMError(
                f"align.fit.teacher: pocketsphinx is not installed or does not speak {language!r}; use 'auto' or 'none'"
            )
        return wanted != "none" and teacher.available(language)

    def _fit(
        self,
        utterances: Sequence[Utterance],
        taught: Sequence[list[Taught] | None],
        language: str,
        out: Path,
        work: Path,
        progress: Progress,
    ) -> dict[str, Any]:
        import torch

        from spiritlm_core.align.ctc import CTCAligner, CTCShape
        from spiritlm_core.align.training import train

        settings = self.config
        characters = characters_of([utterance.words for utterance in utterances], settings.rarest)
        torch.manual_seed(settings.seed)
        sizes = {"channels": settings.channels, "layers": settings.layers, "mels": settings.mels}
        model = CTCAligner(CTCShape(language=language, characters=characters, **sizes), settings.dropout)
        items = _items(model, utterances, taught)
        loss = train(model, items, settings, work, within(progress, _TAUGHT_SHARE, 1))
        shift = 0.0
        if not any(times is not None for times in taught):
            shift = _measured_delay(model, utterances)
        model.shape = model.shape.model_copy(update={"shift": shift})
        model.save(out)
        return {"steps": settings.steps, "loss": loss, "delay_ms": 1000 * shift, "characters": len(characters)}


def _items(model: CTCAligner, utterances: Sequence[Utterance], taught: Sequence[list[Taught] | None]) -> list[Item]:
    import torch

    from spiritlm_core.align.training import Item

    items = []
    for utterance, times in zip(utterances, taught, strict=True):
        with torch.no_grad():
            features = model.front_end(torch.from_numpy(utterance.waveform)[None])[0]
        labels = labels_of(utterance.words, model.dictionary)
        spikes = None if times is None else spikes_of(utterance.words, times, len(features), model.dictionary)
        if len(labels):
            items.append(Item(features, labels, spikes))
    return items


def _measured_delay(model: CTCAligner, utterances: Sequence[Utterance]) -> float:
    from spiritlm_core.align.training import delay

    short = [utterance for utterance in utterances if len(utterance.waveform) <= _SHORT * 16_000]
    chosen = short[:: max(1, len(short) // _FOR_DELAY)]
    return delay(Aligner(model, model.dictionary, "cpu"), ((u.waveform, u.words) for u in chosen))


def _first_minutes(utterances: Sequence[Utterance], minutes: float) -> list[Utterance]:
    """Up to `minutes` of the utterances, evenly over the corpus."""
    seconds = teacher.seconds_of(utterances)
    stride = max(1, round(seconds / (minutes * 60) + 0.49))
    return list(utterances[::stride])


def _transcript(recogniser: Any, utterance: Utterance, language: str) -> str:
    try:
        return str(recogniser.transcribe(utterance.waveform, language)[0])
    except Rejection:
        return ""


def _write_placeholder(out: Path, language: str) -> None:
    content = json.dumps({"model_type": UNFITTED, "language": language}, ensure_ascii=False)
    (out / "config.json").write_text(content, encoding="utf-8")
