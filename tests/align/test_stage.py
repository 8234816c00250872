from itertools import chain
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from spiritlm_core.align.config import WordsConfig
from spiritlm_core.align.interpolate import Span
from spiritlm_core.align.stage import WORDS, WordsStage
from spiritlm_core.align.whisperx import Aligner, Heard
from spiritlm_core.errors import Rejection
from tests.align.speech import row, sentences, table

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
DICTIONARY = {"<pad>": 0, "|": 1, **{letter: index + 2 for index, letter in enumerate(LETTERS)}}


def heard(frames: int, spikes: dict[int, str]) -> Heard:
    """An emission with clear spikes at the given frames."""
    import torch

    logits = torch.zeros(frames, len(DICTIONARY))
    logits[:, 0] = 12.0
    for frame, letter in spikes.items():
        logits[frame, 0] = 0.0
        logits[frame, DICTIONARY[letter]] = 12.0
    return Heard(logits, frames / 50, DICTIONARY)


ALIGNER = Aligner(None, DICTIONARY, "cpu")
HELLO = {10: "h", 12: "i", 15: "|", 30: "y", 32: "o", 35: "u", 40: "|"}


def test_times_are_where_the_spikes_are():
    assert ALIGNER.align(heard(60, HELLO), ["hi", "you"]) == [
        Span(0.2, 0.3, pytest.approx(1.0, abs=0.01)),
        Span(0.6, 0.8, pytest.approx(1.0, abs=0.01)),
    ]


def test_the_whole_segment_is_accounted_for():
    # the last word was misheard; it still belongs where something was said, not right after the word before
    emission = heard(100, HELLO | {75: "z", 77: "z", 79: "z"})
    emission.logits[[75, 77, 79], DICTIONARY["z"]] = 14.0
    spans = ALIGNER.align(emission, ["hi", "you", "no"])
    assert [round(span.start, 2) for span in spans] == [0.2, 0.6, 1.5]


def test_a_word_of_unknown_characters_has_no_times_and_the_others_keep_theirs():
    first, unknown, last = ALIGNER.align(heard(60, HELLO | {20: "x", 22: "|"}), ["hi", "☃", "you"])
    assert unknown is None
    assert first == ALIGNER.align(heard(60, HELLO), ["hi", "you"])[0]
    assert last.start == 0.6


def test_more_letters_than_frames_do_not_fit():
    emission = heard(5, {})
    assert emission.misfit(["impossible"]) == float("inf")
    with pytest.raises(Rejection, match="does not fit"):
        ALIGNER.align(emission, ["impossible"])


def test_the_reading_and_the_misfit_tell_right_from_wrong():
    emission = heard(60, HELLO)
    assert emission.reading() == "hiyou"
    assert emission.misfit(["hi", "you"]) < 0.5
    assert emission.misfit(["no", "way"]) > 5


def test_nltk_is_put_back():
    from whisperx import alignment

    before = alignment.nltk_load
    ALIGNER.align(heard(60, HELLO), ["hi", "you"])
    assert alignment.nltk_load is before


def stage(config: WordsConfig, transcriber=None, **models):
    made = WordsStage(config, {"asr": "unused", **models} if transcriber else models)
    if transcriber:
        made.__dict__["_transcriber"] = transcriber
    return made


@pytest.fixture(scope="module")
def speech():
    return sentences(6)


def test_every_row_stays_a_row_with_its_reason(fitted, speech):
    (text, waveform), (other, _), *_ = speech
    rows = [
        row("good", waveform, text),
        row("beep", waveform, "[beep] ..."),
        row("wrong", waveform, other * 3),
        row("broken", waveform, text, audio=b"fLaC nonsense"),
        row("silent", waveform, None),
        row("upstream", waveform, None, audio=None, reject_stage="audio", reject_reason="no speech found"),
    ]
    made = stage(WordsConfig(mode="given"), aligner=fitted[0])
    made.setup()
    answer = made.process(table(rows))
    assert answer.schema == WORDS
    good, beep, wrong, broken, silent, upstream = answer.to_pylist()
    assert [w["word"] for w in good["words"]] == text.split()
    assert good["text"] == text
    assert good["text_origin"] == "given"
    assert beep["reject_reason"] == "no words in the transcript"
    assert wrong["reject_reason"].startswith("the transcript does not fit the audio")
    assert broken["reject_stage"] == "words"
    assert (silent["words"], silent["text_origin"], silent["reject_stage"]) == ([], None, None)
    assert (upstream["reject_stage"], upstream["reject_reason"]) == ("audio", "no speech found")
    assert [row["words"] for row in (beep, wrong, broken, upstream)] == [None] * 4
    strict = stage(WordsConfig(mode="given", untranscribed="reject"), aligner=fitted[0])
    assert "no transcript" in strict.process(table(rows[4:5])).to_pylist()[0]["reject_reason"]


def test_a_row_does_not_depend_on_its_shard(fitted, speech):
    rows = [row(f"u{i}", waveform, text) for i, (text, waveform) in enumerate(speech)]
    together = stage(WordsConfig(), aligner=fitted[0]).process(table(rows))
    apart = [stage(WordsConfig(), aligner=fitted[0]).process(table([one])) for one in rows[::-1]]
    assert together == pa.concat_tables(apart[::-1])


def test_the_transcript_of_a_long_recording_is_placed(fitted, speech):
    rows, now = [], 0.0
    for index, (_, waveform) in enumerate(speech):
        key = {"recording_id": "long", "start": now}
        rows.append(row(f"long-{index}", waveform, None, **key))
        now += len(waveform) / 16_000 + 1
    rows[0]["recording_text"] = " ".join(text for text, _ in speech)
    shuffled = [rows[i] for i in (3, 0, 5, 1, 4, 2)]
    answers = stage(WordsConfig(mode="given", max_misfit=20.0), aligner=fitted[0]).process(table(shuffled)).to_pylist()
    found = {answer["utterance_id"]: [w["word"] for w in answer["words"]] for answer in answers}
    placed = [found[f"long-{i}"] for i in range(len(speech))]
    assert list(chain.from_iterable(placed)) == rows[0]["recording_text"].split()
    wrong = sum(abs(len(words) - len(text.split())) for words, (text, _) in zip(placed, speech, strict=True))
    assert wrong <= 10


class Scripted:
    """Says what it is told to; stands for a recogniser where its answer is not the point."""

    def __init__(self, text, confidence=-0.2):
        self.answer = (text, confidence)

    def transcribe(self, waveform, language):
        return self.answer


def test_which_text_is_used(fitted, speech):
    (text, waveform), *_ = speech
    rows = table([row("given", waveform, text), row("not", waveform, None)])
    recogniser = Scripted(text)

    def origins(mode):
        made = stage(WordsConfig(mode=mode), recogniser, aligner=fitted[0])
        return [answer["text_origin"] for answer in made.process(rows).to_pylist()]

    assert origins("auto") == ["given", "asr"]
    assert origins("transcribe") == ["asr", "asr"]


@pytest.mark.parametrize(
    ("text", "confidence", "reason"),
    [("you", -1.7, "unsure"), ("...", -0.1, "heard no words")],
)
def test_a_doubtful_recognition_is_rejected(fitted, speech, text, confidence, reason):
    made = stage(WordsConfig(mode="transcribe"), Scripted(text, confidence), aligner=fitted[0])
    (answer,) = made.process(table([row("u", speech[0][1], None)])).to_pylist()
    assert reason in answer["reject_reason"]


def test_an_error_of_the_machine_is_raised(fitted, speech):
    def broken(*_):
        raise MemoryError

    made = stage(WordsConfig(mode="transcribe"), SimpleNamespace(transcribe=broken), aligner=fitted[0])
    with pytest.raises(MemoryError):
        made.process(table([row("u", speech[0][1], None)]))


def test_an_empty_shard():
    assert stage(WordsConfig()).process(table([])).schema == WORDS


def test_a_hugging_face_model_is_an_aligner_too(tmp_path, speech):
    import json

    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    labels = {
        "<pad>": 0,
        "<s>": 1,
        "</s>": 2,
        "<unk>": 3,
        "|": 4,
        **{c: i + 5 for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ'")},
    }
    (tmp_path / "vocab.json").write_text(json.dumps(labels))
    config = Wav2Vec2Config(
        vocab_size=len(labels), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path)
    (text, waveform), *_ = speech
    made = stage(WordsConfig(mode="given", max_misfit=1000.0), aligner=tmp_path)
    (answer,) = made.process(table([row("u", waveform, text)])).to_pylist()
    assert answer["reject_reason"] is None
    assert len(answer["words"]) == len(text.split())
    assert not any(word["interpolated"] for word in answer["words"])
    assert np.all(np.diff([word["start"] for word in answer["words"]]) >= 0)
