"""A model that was trained on the spoken form of texts is asked with texts as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.heldout.answers import Evaluated
from spiritlm_core.evaluate.heldout.fewshot import ask, questions
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.presets import classify
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.tokens.config import SequencesStageConfig, TokenizerStageConfig
from spiritlm_core.tokens.fit import TokenizerFit
from spiritlm_core.tokens.hf import vocabulary_for
from spiritlm_core.tokens.stage import SequencesStage
from tests.evaluate.corpora import CONFIG, SCHEMAS, SIZES, WORD_LIST, Corpus, make_corpus, make_model


def test_a_model_of_spoken_texts_is_asked_in_them_by_whoever_asks(tmp_path: Path) -> None:
    """The tables of a corpus whose transcripts are digits, through the stages, to a model and its evaluation."""
    given = make_corpus(tmp_path / "given").tables
    digits = {word: f"{i}," for i, word in enumerate(WORD_LIST)}
    rows = [row for shard in given["words"].shards() for row in shard.to_pylist()]
    for row in rows:
        for word in row["words"] or []:
            word["word"] = digits[word["word"]]
        row["text"] = row["text"] and " ".join(digits[word] for word in row["text"].split())
    tables = {**given, "words": TableView.of(table_of(rows, SCHEMAS["words"]))}
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    fit = TokenizerFit(TokenizerStageConfig(vocab_size=320, text="spoken"), {})
    fit.build(tables, tokenizer, tmp_path, lambda *_: None)
    config = SequencesStageConfig(**SIZES)
    stage = SequencesStage(config, {"tokenizer": tokenizer})
    whole = [table_of([r for s in tables[n].shards() for r in s.to_pylist()], SCHEMAS[n]) for n in list(SCHEMAS)[:3]]
    inputs = [one for one in stage.inputs if not one.optional]
    wanted = [list(one.columns) if one.columns else part.column_names for one, part in zip(inputs, whole, strict=True)]
    sequences = stage.process(*(part.select(names) for part, names in zip(whole, wanted, strict=True)))
    corpus = Corpus({**tables, "sequences": TableView.of(sequences)}, tokenizer, vocabulary_for(tokenizer, config))
    folder = make_model(tmp_path / "model", corpus)

    spirit = SpiritLM.from_pretrained(folder)
    (row, *_) = (row for row in sequences.to_pylist() if row["text_ids"])
    written = " ".join(f"{WORD_LIST.index(word)}." for word in row["words"])
    (prompt,) = spirit.prompt_ids([written], "speech")
    assert row["text_ids"] == prompt[-len(row["text_ids"]) - 1 : -1]
    with pytest.raises(SpiritLMError, match="'two' is given twice"):
        classify(spirit, "One", ["2", "Two!"])
    assert classify(spirit, "One", ["2", "3"]).label in ("2", "3")

    evaluated = Evaluated.load(folder)
    asked, pool = questions(corpus.tables["sequences"], CONFIG, evaluated.context_length)
    task = ask("speech_to_text", asked, pool, evaluated, CONFIG, len(asked), shots=2)
    assert {word for one in task.questions for word in one.text.split()} <= set(WORD_LIST)
    assert task.rates["model"].length == tuple(len(one.text.split()) for one in task.questions)
