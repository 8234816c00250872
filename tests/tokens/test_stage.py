from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.lake.schema import Row, table_of
from spiritlm_core.quality.selection import SELECTION
from spiritlm_core.tokens.config import SequencesStageConfig, TokensConfig, UniformLaw
from spiritlm_core.tokens.hf import vocabulary_for
from spiritlm_core.tokens.speech import Streams, merge_streams
from spiritlm_core.tokens.stage import SEQUENCES, SequencesStage, slots, switches
from spiritlm_core.tokens.text import TextTokenizer
from tests.tokens.finished import rows, tables
from tests.tokens.tokenizers_for_tests import transcripts

SIZES = SequencesStageConfig(hubert=60, pitch=9, style=5)
CONFIG = TokensConfig(
    sequences=SIZES,
    context_length=256,
    text_span=UniformLaw(minimum=1, maximum=6),
    speech_span=UniformLaw(minimum=1, maximum=4),
)


def run(folder: Path, *parts: list[Row], config: SequencesStageConfig = SIZES) -> list[Row]:
    stage = SequencesStage(config, {"tokenizer": folder})
    stage.setup()
    found = stage.process(*tables(*parts))
    assert found.schema == SEQUENCES
    return found.to_pylist()


def test_every_token_of_every_row_belongs_to_one_word(folders: dict[str, Path]) -> None:
    texts = transcripts()[:200]
    parts = rows(texts)
    text = TextTokenizer.load(folders["llama3"])
    vocabulary = vocabulary_for(text, SIZES)
    for row, words, units in zip(run(folders["llama3"], *parts), parts[1], parts[2], strict=True):
        assert row["reject_stage"] is None
        assert row["text_ids"] == text.encode("".join(f" {word}" for word in words["text"].split()))
        merged = merge_streams(Streams(units["hubert"], units["pitch"], units["style"]))
        assert row["speech_ids"] == merged.ids(vocabulary).tolist()
        assert row["words"] == words["text"].split()
        starts = [word["start"] for word in words["words"]]
        for i in range(len(starts)):  # start times lie in the word's slot, silence belongs to the earlier word
            times = merged.times[row["speech_offsets"][i] : row["speech_offsets"][i + 1]]
            assert i == 0 or (times >= starts[i]).all()
            assert i == len(starts) - 1 or (times < starts[i + 1]).all()


def test_base_has_phonetic_units_only(folders: dict[str, Path]) -> None:
    base = SequencesStageConfig(hubert=60, pitch=0, style=0)
    (row,) = run(folders["gpt2"], *rows(["one two three"]), config=base)
    vocabulary = vocabulary_for(folders["gpt2"], base)
    assert max(row["speech_ids"]) < vocabulary.size == vocabulary.text_size + 62


def test_rows_with_too_few_timed_words_keep_their_speech(folders: dict[str, Path]) -> None:
    audio, words, units = rows(["one two three", "four five six", "seven", "eight nine"])
    words[0]["words"][1]["interpolated"] = True  # a third: allowed
    for word in words[1]["words"][:2]:
        word["interpolated"] = True
    words[2].update(words=[], text=None)
    words[3].update(words=None, text=None)
    found = run(folders["gpt2"], audio, words, units)
    assert [row["speech_only"] for row in found] == [False, True, True, True]
    for row in found[1:]:
        count = len(row["speech_ids"])
        assert count > 0
        assert (row["words"], row["text_ids"], row["text_offsets"]) == ([""], [], [0, 0])
        assert (row["speech_offsets"], row["can_switch"]) == ([0, count], [True])


def test_the_label_of_a_recording_is_tokenized_as_an_answer(folders: dict[str, Path]) -> None:
    audio, words, units = rows(["one two", "three four", "five", "six"])
    for row, label in zip(audio, ("digits", "  two\n words ", None, " "), strict=True):
        row |= {"label": label, "origin": "synthetic" if label else "recorded"}
    found = run(folders["gpt2"], audio, words, units)
    text = TextTokenizer.load(folders["gpt2"])
    ids = [text.encode(" digits"), text.encode(" two words"), None, None]
    assert [row["label_ids"] for row in found] == ids
    assert [row["label"] for row in found] == [row["label"] for row in audio]
    assert [row["origin"] for row in found] == [row["origin"] for row in audio]
    assert found[0]["text_ids"] == text.encode(" one two")


def test_rejected_rows_travel_on_and_bad_ones_are_rejected(folders: dict[str, Path]) -> None:
    audio, words, units = rows(["one two"] * 5)
    words[1] = {"utterance_id": "u1", "reject_stage": "words", "reject_reason": "no alignment"}
    audio[2].update(reject_stage="audio", reject_reason="empty file")
    units[2] = {"utterance_id": "u2", "reject_stage": "audio", "reject_reason": "empty file"}
    units[3].update(hubert=[], pitch=[], style=[])
    words[4]["words"][0]["word"] = "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    found = run(folders["gpt2"], audio, words, units)
    reasons = [(row["reject_stage"], row["reject_reason"]) for row in found]
    assert reasons[1:3] == [("words", "no alignment"), ("audio", "empty file")]
    assert reasons[3][0] == "sequences"
    assert "no speech units" in reasons[3][1]
    assert (reasons[0], reasons[4]) == ((None, None), (None, None))
    assert all(row["text_ids"] is None for row in found[1:4])
    assert [row["recording_id"] for row in found] == [row["recording_id"] for row in audio]


def test_what_the_selection_leaves_out_is_left_out(folders: dict[str, Path]) -> None:
    given = tables(*rows(["one two"] * 2))
    out = {"utterance_id": "u1", "reject_stage": "selection", "reject_reason": "snr < 10 dB: 7.2"}
    stage = SequencesStage(SIZES, {"tokenizer": folders["gpt2"]})
    first, second = stage.process(*given, table_of([{"utterance_id": "u0"}, out], SELECTION)).to_pylist()
    assert (first["reject_stage"], second["reject_stage"]) == (None, "selection")
    assert second["reject_reason"] == "snr < 10 dB: 7.2"
    assert (first["text_ids"] is None, second["text_ids"]) == (False, None)


def test_wrong_sizes_and_unaligned_tables_stop_the_run(folders: dict[str, Path]) -> None:
    parts = rows(["one two"])
    with pytest.raises(SpiritLMError, match=r"tokens\.sequences"):
        run(folders["gpt2"], *parts, config=SequencesStageConfig(hubert=10, pitch=9, style=5))
    other = copy.deepcopy(parts[2])
    other[0]["utterance_id"] = "another"
    with pytest.raises(LakeError, match="same rows"):
        run(folders["gpt2"], parts[0], parts[1], other)


@given(st.lists(st.floats(0, 9), min_size=1, max_size=12), st.lists(st.floats(0, 10), max_size=60))
def test_slots_cover_all_tokens(starts: list[float], times: list[float]) -> None:
    starts, times = sorted(starts), sorted(times)
    offsets = slots(starts, np.array(times)).tolist()
    assert offsets[0] == 0
    assert offsets[-1] == len(times)
    assert offsets == sorted(offsets)
    owners = np.repeat(np.arange(len(starts)), np.diff(offsets)).tolist()
    assert owners == [max([i for i, start in enumerate(starts) if start <= time], default=0) for time in times]


def test_words_out_of_order_lose_no_token() -> None:
    assert slots([1.0, 0.5, None, 2.0], np.array([0.0, 0.7, 1.5, 2.5])).tolist() == [0, 2, 2, 3, 4]


COUNTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=25)


@given(COUNTS)
def test_between_switches_there_is_text_and_speech(counts: list[tuple[int, int, bool]]) -> None:
    text, speech, allowed = (np.array(column) for column in zip(*counts, strict=True))
    found = switches(text, speech, allowed)
    assert found[0]
    assert not (found[1:] & ~allowed[1:]).any()
    starts = np.flatnonzero(found)
    if text.sum() and speech.sum():
        assert np.add.reduceat(text, starts).all()
        assert np.add.reduceat(speech, starts).all()
    if text.all() and speech.all():
        assert (found[1:] == allowed[1:]).all()


def test_importing_the_stages_loads_no_heavy_package() -> None:
    import subprocess
    import sys

    code = (
        "import sys, spiritlm_core.tokens.stage, spiritlm_core.tokens.fit, spiritlm_core.tokens.mix; "
        "sys.exit(bool({'torch', 'transformers', 'tokenizers', 'sentencepiece', 'ray', 'prefect'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
