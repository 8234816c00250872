"""The corpus that a recipe has made in a lake: its tables, tokenizer and vocabulary, for looking at and for export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import config_json, stage_identity
from spiritlm_core.lake.forgotten import refuse_forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import SequencesConfig, TokensConfig
from spiritlm_core.tokens.corpus import STREAMS
from spiritlm_core.tokens.hf import vocabulary_for
from spiritlm_core.tokens.mix import Mixture
from spiritlm_core.tokens.stage import SequencesStage
from spiritlm_core.tokens.texts import DOCUMENTS
from spiritlm_core.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class FinishedCorpus:
    """What training sequences are drawn from; `fingerprints` are those of the snapshots and the tokenizer, by name."""

    recipe: str
    config: TokensConfig
    tokenizer: Path
    vocabulary: Vocabulary
    sequences: TableView
    text: TableView | None
    fingerprints: dict[str, str]

    @classmethod
    def open(cls, lake: Lake, recipe: str, config: TokensConfig, *, texts: bool, asked: str | None = None) -> Self:
        """Find the corpus of a recipe, which must have been made with `config`, and with texts if it has `texts`.

        Messages call the recipe what the user does, `asked`.

        Raises LakeError: there is none yet, it was made with other settings, or still holds what was forgotten.
        """
        how = f"`spiritlm run {asked or recipe} --until corpus --lake {lake.uri}` makes it"
        sequences = _snapshot(lake, recipe, "sequences", how)
        refuse_forgotten(lake, (sequences.fingerprint,), how)
        key = str(sequences.models.get("tokenizer"))
        settings = config_json(config.sequences)
        if sequences.identity != stage_identity("sequences", SequencesStage.version, settings, {"tokenizer": key}):
            raise LakeError(
                f"the corpus of {recipe!r} in {lake.uri} was made with other settings of tokens.sequences: {how}"
            )
        text = _snapshot(lake, recipe, "text", how) if texts else None
        if text and text.models != {"tokenizer": key}:
            raise LakeError(f"the texts of {recipe!r} in {lake.uri} were made with another tokenizer: {how}")
        return cls._found(lake, recipe, config, sequences, text, how)

    @classmethod
    def as_trained(cls, lake: Lake, recipe: str) -> Self:
        """The corpus as the model that a recipe has in a lake mixes it; in the usual shares where it has none yet.

        Raises LakeError: there is none yet, or an earlier version of this package made it.
        """
        how = f"`spiritlm run {recipe} --until corpus --lake {lake.uri}` makes it"
        sequences = _snapshot(lake, recipe, "sequences", how)
        text = _snapshot(lake, recipe, "text", how) if lake.read_ref(recipe, "text") else None
        model = lake.used_artifact(recipe, "model")
        made = lake.read_footer("sequences", sequences.keys[0])
        if made.stage_version != SequencesStage.version:
            raise LakeError(f"the corpus of {recipe!r} in {lake.uri} is of an earlier version of this package: {how}")
        laid_out = {name: made.config[name] for name in SequencesConfig.model_fields if name in made.config}
        config = TokensConfig.model_validate({**(model.config["tokens"] if model else {}), "sequences": laid_out})
        return cls._found(lake, recipe, config, sequences, text, how)

    @classmethod
    def _found(
        cls, lake: Lake, recipe: str, config: TokensConfig, sequences: Snapshot, text: Snapshot | None, how: str
    ) -> Self:
        key = str(sequences.models.get("tokenizer"))
        tokenizer = lake.read_artifact("tokenizer", key)
        if tokenizer is None:
            raise LakeError(f"tokenizer {key[:12]} is missing from {lake.uri}: {how}")
        folder = lake.artifact_folder(tokenizer)
        inputs = {"sequences": sequences.fingerprint, **({"text": text.fingerprint} if text else {}), "tokenizer": key}
        view = lake.view(text) if text else None
        vocabulary = vocabulary_for(folder, config.sequences)
        return cls(recipe, config, folder, vocabulary, lake.view(sequences), view, inputs)

    def mixture(
        self, *, seed: int, split: str = "train", epoch: int = 0, shares: dict[str, Any] | None = None
    ) -> Mixture:
        """Where training draws from, from the start of an epoch on, perhaps with other `shares`.

        Raises LakeError: a table and the vocabulary do not match; SpiritLMError: the streams have no documents in this
        split.
        """
        config = self.config.model_validate({**self.config.model_dump(), **({"shares": shares} if shares else {})})
        state = {"streams": dict.fromkeys((*STREAMS, DOCUMENTS), (epoch,)), "in_memory": config.in_memory}
        return Mixture.of(self.sequences, self.vocabulary, config, seed=seed, state=state, split=split, text=self.text)


def _snapshot(lake: Lake, recipe: str, table: str, how: str) -> Snapshot:
    ref = lake.read_ref(recipe, table)
    if ref is None:
        raise LakeError(f"{lake.uri} has no table `{table}` of recipe {recipe!r} yet: {how}")
    return lake.read_snapshot(table, ref.target)
