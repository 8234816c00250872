"""Training documents of the streams of examples, beside the prompts that a model is asked by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.content import Speech
from spiritlm_core.lm.generate.fewshot import FewShot, judged
from spiritlm_core.lm.generate.presets import Task, ask
from spiritlm_core.lm.generate.prompts import Example, Kind, parts_of
from spiritlm_core.tokens.config import PairsConfig, SharesConfig, TokensConfig
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.text import TextTokenizer
from tests.lm import corpora
from tests.lm.training import run
from tests.support.documents import documents
from tests.support.small_model import tiny_config

LINES = corpora.sentences(30)


def examples(table: pa.Table, spirit: SpiritLM, stream: str, **pairs: object) -> list[Document]:
    config = TokensConfig(context_length=4096, pairs=PairsConfig.model_validate({"crops": 0, **pairs}))
    view = TableView.of(table)
    return list(documents(view, spirit.vocabulary, config, stream=stream, split="train", seed=0, epoch=0))


def question(number: int, task: str) -> str | Speech:
    """The words of an utterance of the corpus, or the units that a speech tokenizer makes of its recording."""
    if task == "tts":
        return LINES[number]
    units, _ = corpora.speak(LINES[number].split(), np.random.default_rng([7, number]), corpora.SIZES)
    return Speech(units=units)


@pytest.mark.parametrize("task", ["asr", "tts"])
def test_what_a_model_is_asked_is_how_its_training_document_begins(
    task: Task, table: pa.Table, published: Path
) -> None:
    spirit = SpiritLM.from_pretrained(published)
    found = examples(table, spirit, task)
    train = [number for number in range(len(LINES)) if number % 10]
    fits = {n: one for n, one in zip(train, found, strict=True) if one.predicted.argmax() < spirit.context}
    assert len(fits) > 10
    answers = ask(spirit, task, [question(number, task) for number in fits], max_new_tokens=1)
    for document, answer in zip(fits.values(), answers, strict=True):
        prompt, ids = list(answer.prompt_ids), document.ids.tolist()
        assert ids[: len(prompt)] == prompt
        assert ids[-1] == spirit.vocabulary.eos
        assert document.predicted is not None
        assert document.predicted.tolist() == [False] * len(prompt) + [True] * (len(ids) - len(prompt))


@pytest.mark.parametrize("task", ["asr", "tts"])
def test_a_few_shot_prompt_is_how_a_document_of_several_examples_begins(
    task: Task, table: pa.Table, published: Path
) -> None:
    spirit = SpiritLM.from_pretrained(published)
    first: Kind = "speech" if task == "asr" else "text"
    fewshot = FewShot(spirit, first, "text" if task == "asr" else "speech", max_new_tokens=1, context=4096)
    shown = 0
    for document in examples(table, spirit, task, shots=2):
        parts = [(kind, written(spirit, kind, ids)) for kind, ids in parts_of(document.ids.tolist(), spirit.vocabulary)]
        solved = [Example((parts[i],), (parts[i + 1],)) for i in range(0, len(parts), 2)]
        asked = fewshot.lay_out(solved[-1].question, solved[:-1])
        assert asked.shots == len(solved) - 1
        assert document.ids.tolist()[: len(asked.prompt)] == list(asked.prompt)
        shown += asked.shots
    assert shown > 10


def test_what_is_judged_of_a_label_is_its_training_document(table: pa.Table, published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    labels = ["ask", "please do"]
    ids = [TextTokenizer.load(published).encode_words(labels[number % 2]).ids.tolist() for number in range(len(LINES))]
    place = table.column_names.index("label_ids")
    labelled = table.set_column(place, table.schema.field(place), pa.array(ids, table.schema.types[place]))
    found = examples(labelled, spirit, "classification")
    train = [number for number in range(len(LINES)) if number % 10]
    spirit.model.config.max_position_embeddings = 4096
    for number, document in zip(train, found, strict=True):
        (parts,) = spirit.parts([question(number, "asr")])
        asked = judged(spirit, parts, "text", labels[number % 2])
        assert document.ids.tolist() == [*asked.prompt, *asked.answer, spirit.vocabulary.eos]
        assert document.predicted is not None
        assert document.predicted.tolist().index(True) == len(asked.prompt)


def written(spirit: SpiritLM, kind: Kind, ids: list[int]) -> str:
    return spirit.layout.text(ids).strip() if kind == "text" else spirit.layout.tokens(ids)


def test_training_reports_the_streams_of_examples_where_they_have_a_share(job: FitJob) -> None:
    config = tiny_config(steps=6)
    shares = SharesConfig(text=0, speech=0, interleaved=1, asr=1)
    tokens = config.tokens.model_copy(update={"shares": shares})
    summary, _ = run(replace(job, config=config.model_copy(update={"tokens": tokens})))
    rows = pq.read_table(job.out / "metrics.parquet").to_pylist()
    assert [row["loss_asr"] for row in rows if row["loss_asr"]]
    assert {row["loss_text"] for row in rows} == {None}
    assert rows[-1]["validation_asr"] > 0
    assert summary["loss_asr"] == rows[-1]["loss_asr"]
    assert not [name for name in (*rows[0], *summary) if "tts" in name]
