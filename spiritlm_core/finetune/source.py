"""Training sequences of a fine-tuning task: whole examples packed together, the loss on their answers alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from spiritlm_core.errors import NothingToTrainOnError
from spiritlm_core.finetune.config import ContextConfig
from spiritlm_core.lake.fingerprint import config_json, digest
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.counter import combine, key_of
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.pack import Packed, Where, fit, of_rank, packed
from spiritlm_core.tokens.vocabulary import Vocabulary

COLUMNS = ("example_id", "prompt_ids", "answer_ids", "answer_kind")


def read_examples(view: TableView, split: str) -> list[Document]:
    """The good rows of a table of examples, by example_id; the order of shards makes no difference.

    A document is a question and its answer, which alone the loss counts; its stream is the modality of the answer.
    """
    documents = []
    for shard in view.good(COLUMNS, split):
        for row in shard.to_pylist():
            prompt, answer = row["prompt_ids"], row["answer_ids"]
            counted = np.repeat([False, True], [len(prompt), len(answer)])
            ids = np.array([*prompt, *answer], np.int32)
            documents.append(Document(ids, row["answer_kind"], row["example_id"], counted))
    return sorted(documents, key=lambda document: document.key)


@dataclass(frozen=True)
class ExampleSource:
    """A :class:`spiritlm_core.lm.train.source.Source` of examples, each whole, in a new order every epoch."""

    examples: TableView  # a table `task_examples`
    tokens: ContextConfig  # length of sequences, and how many are packed together

    def batches(self, vocabulary: Vocabulary, **where: Unpack[Where]) -> Iterator[tuple[Packed, dict[str, Any]]]:
        """See :class:`spiritlm_core.lm.train.source.Source`; ids are checked where batches are made.

        Raises NothingToTrainOnError: no example is left to train on.
        """
        order, state = _Order(read_examples(self.examples, "train"), where["seed"]), where["start_state"]
        windows, length = order.windows(state or {}, self.tokens), self.tokens.context_length
        yield from of_rank(windows, lambda members: packed(members, length), state, where["rank"], where["world_size"])

    def held_out(self, vocabulary: Vocabulary, *, count: int, seed: int) -> list[Packed]:
        """See :class:`spiritlm_core.lm.train.source.Source`: as many whole examples as fit, drawn by `seed`."""
        examples = read_examples(self.examples, "held_out")
        if not examples or not count:
            return []
        sequences, _ = _Order(examples, seed).window(
            (0, 0), self.tokens.model_copy(update={"window": count}), once=True
        )
        return [packed(members, self.tokens.context_length) for members in sequences[:count]]

    def fingerprint(self) -> str:
        """See :class:`spiritlm_core.lm.train.source.Source`: shards and settings."""
        return digest(["examples", self.examples.digests(), config_json(self.tokens)])


Place = tuple[int, int]  # epoch, and examples taken of it


class _Order:
    """Examples without end, in a new order every epoch."""

    def __init__(self, examples: list[Document], seed: int) -> None:
        if not examples:
            raise NothingToTrainOnError(
                "no example is in the train split: see the rejected rows of task_units and task_examples"
            )
        self._examples, self._seed = examples, seed
        self._keys = np.array([key_of(example.key) for example in examples], np.uint64)

    def _epoch(self, epoch: int) -> np.ndarray:
        return np.argsort(combine(self._keys, key_of(self._seed, "examples", epoch)), kind="stable")

    def windows(
        self, state: Mapping[str, Any], tokens: ContextConfig
    ) -> Iterator[tuple[dict[str, Any], list[list[Document]]]]:
        """The windows without end from that of `state` on, each with the state in front of it."""
        place = state.get("epoch", 0), state.get("at", 0)
        while True:
            sequences, behind = self.window(place, tokens)
            yield {"epoch": place[0], "at": place[1]}, sequences
            place = behind

    def window(self, place: Place, tokens: ContextConfig, *, once: bool = False) -> tuple[list[list[Document]], Place]:
        """The sequences of the window that begins at `place`, shuffled, and where the next one begins.

        A window may reach over several epochs of a small task; with `once` it ends with the epoch.
        """
        (epoch, at), held, size = place, list[Document](), 0
        order = self._epoch(epoch)
        while size < tokens.window * tokens.context_length:
            if at == len(order):
                if once:
                    break
                epoch, at = epoch + 1, 0
                order = self._epoch(epoch)
            held.append(self._examples[order[at]])
            size, at = size + len(held[-1].ids), at + 1
        members = fit([len(example.ids) for example in held], tokens.context_length)
        rows = np.arange(len(members), dtype=np.uint64)
        shuffled = np.argsort(combine(rows, key_of(self._seed, "window", *place)), kind="stable")
        return [[held[i] for i in members[row]] for row in shuffled.tolist()], (epoch, at)
