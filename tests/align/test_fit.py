import json

import numpy as np
import pytest

from spiritlm_core.align import teacher as corpus
from spiritlm_core.align import training
from spiritlm_core.align.config import AlignerFitConfig, WordsConfig
from spiritlm_core.align.ctc import CTCAligner, CTCShape
from spiritlm_core.align.fit import AlignerFit
from spiritlm_core.align.stage import WordsStage
from spiritlm_core.align.teacher import Pocketsphinx, available, teach
from spiritlm_core.align.training import loud_edges, speech_onset
from spiritlm_core.align.whisperx import Aligner
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.fit import steps as fit_steps
from spiritlm_core.lake.view import TableView
from tests.align.speech import TRAINED, row, sentences, table

TINY = AlignerFitConfig(teacher="none", steps=6, channels=16, layers=2, batch_seconds=8.0, least_minutes=0.05)


def build(config, rows, tmp_path, name="out", work="work", report=lambda *_: None, models=None):
    out = tmp_path / name
    for folder in (out, tmp_path / work):
        folder.mkdir(exist_ok=True)
    summary = AlignerFit(config, models or {}).build({"audio": TableView.of(*rows)}, out, tmp_path / work, report)
    return out, summary


@pytest.fixture(scope="module")
def rows():
    return [row(f"u{i:03}", waveform, text) for i, (text, waveform) in enumerate(sentences(8))]


def test_two_minutes_with_a_teacher_beat_a_proportional_split_on_new_sentences(fitted):
    folder, summary, seen = fitted
    assert summary["taught_utterances"] > 30
    assert seen[-1][0] == pytest.approx(1.0)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    new = sentences(TRAINED + 16)[TRAINED:]
    stage = WordsStage(WordsConfig(mode="given", max_misfit=20.0), {"aligner": folder})
    answers = stage.process(table([row(f"n{i}", w, t) for i, (t, w) in enumerate(new)])).to_pylist()
    ours, split = [], []
    for (text, waveform), answer in zip(new, answers, strict=True):
        words = corpus.spoken(text, "en")
        truth = Pocketsphinx().align(waveform, words)
        if truth is None or len(truth) != len(answer["words"]):
            continue
        begin, end = loud_edges(waveform)
        letters = np.cumsum([0, *map(len, words)])
        ours += [abs(w["start"] - t.start) for w, t in zip(answer["words"], truth, strict=True)]
        split += [abs(begin + (end - begin) * n / letters[-1] - t.start) for n, t in zip(letters, truth, strict=False)]
    assert len(ours) > 60
    assert np.median(ours) < 0.6 * np.median(split)


def test_it_is_saved_as_safetensors_and_config(fitted):
    folder, summary, _ = fitted
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["language"] == "en"
    assert len(config["characters"]) == summary["characters"]


def test_the_order_of_shards_and_rows_does_not_matter(rows, tmp_path):
    first, _ = build(TINY, [table(rows)], tmp_path, "a", "work-a")
    second, _ = build(TINY, [table(rows[5:]), table(rows[:5][::-1])], tmp_path, "b", "work-b")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_killed_fit_goes_on_and_ends_the_same(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_steps, "CHECKPOINT_EVERY", 2)
    whole, _ = build(TINY, [table(rows)], tmp_path, "whole", "work-a")
    real, steps = training._loss, []

    def killed(*arguments):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        build(TINY, [table(rows)], tmp_path, "cut", "work-b")
    again, _ = build(TINY, [table(rows)], tmp_path, "cut", "work-b")
    assert len(steps) == 4 + 4, "steps 3 to 6 are run after the checkpoint of step 2"
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_only_train_rows_with_plausible_transcripts_are_used(rows):
    (text, waveform), *_ = sentences(1)
    bad = [
        row("held", waveform, text, split="held_out"),
        row("none", waveform, None),
        row("noise", waveform, "[beep]"),
        row("endless", waveform, text * 20),
        row("other", waveform, text, language="fr"),
        row("gone", waveform, text, reject_stage="audio", reject_reason="silent"),
    ]
    view = TableView.of(table([*rows, *bad]))
    assert corpus.main_language(view) == "en"
    chosen = corpus.choose(view, "en", minutes=10, longest=20, transcribed=True)
    assert sorted(chosen) == sorted(r["utterance_id"] for r in rows)
    fewer = corpus.choose(view, "en", minutes=0.15, longest=20, transcribed=True)
    assert 0 < sum(fewer.values()) <= 9
    assert list(corpus.choose(view, "en", minutes=10, longest=20, transcribed=False)) == ["none"]


def test_too_little_speech_gives_a_placeholder_and_interpolated_words(rows, tmp_path):
    out, summary = build(AlignerFitConfig(least_minutes=5), [table(rows)], tmp_path)
    assert summary["fitted"] is False
    (answer,) = WordsStage(WordsConfig(), {"aligner": out}).process(table(rows[:1])).to_pylist()
    assert answer["reject_stage"] is None
    assert all(word["interpolated"] for word in answer["words"])
    assert answer["words"][-1]["end"] <= rows[0]["duration"]


def test_an_empty_table_gives_a_placeholder(tmp_path):
    _, summary = build(TINY, [table([])], tmp_path)
    assert summary["fitted"] is False


def test_a_teacher_that_cannot_teach_is_an_error(tmp_path):
    waveform = sentences(1)[0][1]
    rows = [row(f"f{i}", waveform, "bonjour tout le monde", language="fr") for i in range(3)]
    with pytest.raises(SpiritLMError, match="'fr'"):
        build(TINY.model_copy(update={"teacher": "pocketsphinx"}), [table(rows)], tmp_path)


def test_the_teacher_knows_its_words_and_gives_the_same_answers_on_any_number_of_workers():
    pytest.importorskip("pocketsphinx")
    assert available("en")
    assert not available("es")
    spoken = [(waveform, corpus.spoken(text, "en")) for text, waveform in sentences(3)]
    one = teach([*spoken, (spoken[0][0], ["xyzzyq"])], 1)
    assert one[3] is None
    assert one[1] is not None
    assert [time.start for time in one[1]] == sorted(time.start for time in one[1])
    assert all(time.onsets[0] == time.start for time in one[1])
    assert teach(spoken, 2) == one[:3]


def test_the_shift_moves_what_the_model_hears(tmp_path):
    import torch

    torch.manual_seed(0)
    shape = CTCShape(language="en", characters=("<pad>", "|", "a"), channels=16, layers=2, mels=16)
    model = CTCAligner(shape).eval()
    waveform = torch.randn(1, 16_000)
    late = CTCAligner(shape.model_copy(update={"shift": 0.041})).eval()
    late.load_state_dict(model.state_dict())
    assert late(waveform).logits.shape == model(waveform).logits.shape
    assert torch.allclose(late(waveform).logits[:, :30], model(waveform).logits[:, 2:32], atol=1e-5)
    early = CTCAligner(shape.model_copy(update={"shift": -0.041})).eval()
    early.load_state_dict(model.state_dict())
    assert early(waveform).logits.shape == model(waveform).logits.shape
    assert torch.allclose(early(waveform).logits[:, 22:], model(waveform).logits[:, 20:-2], atol=1e-5)
    late.save(tmp_path)
    assert CTCAligner.load(tmp_path).shape == late.shape
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(SpiritLMError, match="not an aligner of this project"):
        CTCAligner.load(tmp_path)


def test_a_model_of_another_kind_is_no_aligner(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(SpiritLMError, match=r"is no aligner: its config.json names \['LlamaForCausalLM'\]"):
        Aligner.load(tmp_path, "en")


def test_one_frame_is_twenty_milliseconds():
    import torch

    model = CTCAligner(CTCShape(language="en", characters=("<pad>", "|"), channels=16, layers=2, mels=16)).eval()
    assert [model(torch.zeros(1, n)).logits.shape[1] for n in (640, 641, 16_000, 16_319, 16_320)] == [2, 3, 50, 51, 51]


def test_the_onset_of_speech_is_where_energy_rises():
    random = np.random.default_rng(0)
    waveform = np.concatenate([random.normal(0, 1e-4, 3200), random.normal(0, 0.1, 8000), np.zeros(1600)])
    assert speech_onset(waveform.astype(np.float32)) == pytest.approx(0.2, abs=0.011)
    assert loud_edges(waveform.astype(np.float32))[1] == pytest.approx(0.7, abs=0.011)
    assert speech_onset(waveform[3200:].astype(np.float32)) is None
    assert loud_edges(np.zeros(100, np.float32)) is None
