"""What one training run is given, and where its sequences come from: the corpus, or the examples of a task."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Unpack, cast

from spiritlm_core.errors import NothingToTrainOnError
from spiritlm_core.fit.job import STOP, FitJob
from spiritlm_core.lake.fingerprint import config_json, digest
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, ModelConfig
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.mix import training_batches
from spiritlm_core.tokens.pack import Packed, Where
from spiritlm_core.tokens.vocabulary import Vocabulary


class Source(Protocol):
    """An endless stream of packed sequences. Picklable, and light: it is built where torch is never loaded."""

    def batches(self, vocabulary: Vocabulary, **where: Unpack[Where]) -> Iterator[tuple[Packed, dict[str, Any]]]:
        """The sequences of a rank.

        Each comes with the JSON-able state that goes on behind it; the states of all ranks mean the same place, and
        serve any number of ranks.
        """

    def held_out(self, vocabulary: Vocabulary, *, count: int, seed: int) -> list[Packed]:
        """At most `count` packed sequences that training never sees, always the same; none if there are none."""

    def fingerprint(self) -> str:
        """Names the content: states are positions in a source with the same fingerprint, and in no other."""


@dataclass(frozen=True)
class CorpusSource:
    """The mixture of the documents of all streams."""

    sequences: TableView  # the table of sequences
    tokens: TokensConfig  # interleaving, packing and mixing
    text: TableView | None = None  # the table of text documents, if there is one

    def batches(self, vocabulary: Vocabulary, **where: Unpack[Where]) -> Iterator[tuple[Packed, dict[str, Any]]]:
        """See :class:`Source`.

        Raises LakeError: the tables were made for another vocabulary; SpiritLMError: there is nothing to train on.
        """
        return training_batches(self.sequences, vocabulary, self.tokens, text=self.text, **where)

    def held_out(self, vocabulary: Vocabulary, *, count: int, seed: int) -> list[Packed]:
        """See :class:`Source`: streams mixed as in training; few recordings come again with other spans."""
        if not count:
            return []
        few = self.tokens.model_copy(update={"window": min(self.tokens.window, count)})
        stream = training_batches(self.sequences, vocabulary, few, seed=seed, split="held_out", text=self.text)
        try:
            return [packed for packed, _ in islice(stream, count)]
        except NothingToTrainOnError:
            return []

    def fingerprint(self) -> str:
        """See :class:`Source`: shards and settings."""
        texts = [] if self.text is None else self.text.digests()
        return digest([self.sequences.digests(), texts, config_json(self.tokens)])


@dataclass(frozen=True)
class Training:
    """Everything that the loop needs.

    Models of the job: ``tokenizer``, the folder of a text tokenizer, or of a model with its ``vocabulary.json``, which
    is that of ``base`` where there is none; ``base``, a folder or ``.gguf`` file, without which a fresh Llama is
    trained; ``quantizer``, the folder of that of the units, where new rows start from its centres.
    """

    job: FitJob  # of a stage with ``LmCompute``; checkpoints go into `work`, and the finished model into `out`
    config: ModelConfig  # what is trained, and on which mix of sequences
    source: Source  # where training sequences come from

    @property
    def compute(self) -> LmCompute:
        """How it runs."""
        return cast("LmCompute", self.job.compute)

    @property
    def tokenizer(self) -> Path:
        """Where the vocabulary is read from."""
        return self.job.models.get("tokenizer") or self.job.models["base"]

    @property
    def stop_file(self) -> Path:
        """A file that, once it exists, asks the run to save and stop."""
        return self.job.work / STOP
