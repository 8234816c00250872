"""The resynthesis check on held-out rows of a lake, as one artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from spiritlm_core.cores import all_cores
from spiritlm_core.evaluate.clips import AUDIO_INPUT, Clip
from spiritlm_core.evaluate.rendering import write_report
from spiritlm_core.evaluate.resynthesis.config import ResynthesisStageConfig
from spiritlm_core.evaluate.units.config import GIVEN, OWN
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView

if TYPE_CHECKING:
    from spiritlm_core.evaluate.resynthesis.systems import System
    from spiritlm_core.speech.tokenizer import SpeechTokenizer


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

        Raises:
            SpiritLMError: Nothing is held out, or a system cannot render a clip.
            ModelReferenceError: A model is missing or damaged.
        """
        from spiritlm_core.evaluate.resynthesis.clips import held_out, train_rows
        from spiritlm_core.evaluate.resynthesis.figures import page, table
        from spiritlm_core.evaluate.resynthesis.run import Judges, evaluate_resynthesis

        del work
        audio = tables["audio"]
        clips = held_out(audio, self.config)
        with all_cores():
            progress(0.0, f"units of train speech, for {len(clips)} held-out clips")
            systems = list(self._systems(train_rows(audio, self.config)))
            report = evaluate_resynthesis(clips, systems, self.config, Judges.load(self.models), tell=progress)
        write_report(out, "resynthesis", report.report, table(report.report), page(report.report, report.sounds))
        figures = {result["name"]: result["figures"] for result in report.report["systems"]}
        summary = {name: {"wer": values["wer"], "mcd": values["mcd"]} for name, values in figures.items()}
        return {**report.report["held_out"], "systems": summary}

    def _systems(self, train: list[Clip]) -> Iterator[System]:
        from spiritlm_core.evaluate.resynthesis.griffin_lim import MelInverter
        from spiritlm_core.evaluate.resynthesis.systems import references, tokenizer_systems

        inverter = MelInverter(self.config.griffin_lim_iterations)
        yield from references(inverter)
        for name, tokenizer in self._tokenizers():
            yield from tokenizer_systems(name, tokenizer, inverter, train)

    def _tokenizers(self) -> Iterator[tuple[str, SpeechTokenizer]]:
        from spiritlm_core.speech.extractor import UnitExtractor
        from spiritlm_core.speech.folder import UNIT_ROLES
        from spiritlm_core.speech.tokenizer import SpeechTokenizer

        own = {role: self.models[role] for role in UNIT_ROLES if role in self.models}
        yield OWN, SpeechTokenizer(UnitExtractor(own, precision=self.config.precision), self.models.get("vocoder"))
        for role in sorted(self.models):
            if role.startswith(GIVEN):
                yield role.removeprefix(GIVEN), SpeechTokenizer.from_pretrained(self.models[role])
