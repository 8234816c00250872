"""The recogniser and the speaker encoder, on real speech; both need a wheel, from the cache or an index."""

from __future__ import annotations

import numpy as np
import pytest

from spiritlm_core.errors import ModelReferenceError, Rejection
from spiritlm_core.evaluate.clips import Recogniser, normalised, word_and_character_errors
from spiritlm_core.evaluate.resynthesis.distances import SpeakerEncoder, cosine
from spiritlm_core.metrics.distances import Errors
from tests.align.speech import sentences
from tests.evaluate.clips import real_clips


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Mr. Steels, he's twenty-one!", "en", "mister steels he is 21"),
        ("Mr. Steels, he's twenty-one!", None, "mister steels he is 21"),
        ("THE CAT [noise] sat", "en-GB", "the cat sat"),
        ("Où est-il, l'été ?", "fr", "où est il l été"),
    ],
)
def test_texts_are_compared_as_whisper_compares_them(text, language, expected):
    assert normalised(text, language) == expected


def test_errors_are_counted_in_words_and_characters():
    words, characters = word_and_character_errors(
        ["The cat sat.", "...", "the cat"], ["the bat sat down", "hello you", ""], "en"
    )
    assert words == Errors((2, 2, 2), (3, 0, 2))
    assert characters == Errors((6, 9, 7), (11, 0, 7))


def test_rates_are_pooled_over_clips_as_jiwer_pools_them():
    import jiwer

    right, heard = ["one two three four", "five", "six seven"], ["one two four", "nine", "six six seven"]
    words, characters = word_and_character_errors(right, heard, "xx")
    assert words.rate == jiwer.wer(right, heard) == 3 / 7
    assert characters.rate == jiwer.cer(right, heard)


@pytest.mark.slow
@pytest.mark.integration
def test_real_speech_is_understood_and_noise_is_not(asr, capfd):
    recogniser = Recogniser(asr)
    given = sentences(3)
    texts, heard = [text for text, _ in given], [recogniser.hear(waveform, "en") for _, waveform in given]
    assert word_and_character_errors(texts, heard, "en")[0].rate < 0.2
    assert capfd.readouterr().out == "", "standard output belongs to the caller"
    with pytest.raises(Rejection, match="English only"):
        recogniser.hear(given[0][1], "fr")
    noise = np.random.default_rng(0).normal(0, 0.05, 32_000).astype(np.float32)
    assert word_and_character_errors(texts[:1], [recogniser.hear(noise, "en")], "en")[0].edits[0] >= 5


@pytest.mark.integration
def test_a_voice_is_nearer_to_itself_than_to_another(speaker_encoder):
    encoder, clips = SpeakerEncoder.load(speaker_encoder), real_clips(6)
    voices = [encoder.embed(clip.waveform) for clip in clips]
    assert all(np.linalg.norm(voice) == pytest.approx(1, abs=1e-5) for voice in voices)
    pairs = [(i, j) for i in range(len(clips)) for j in range(i)]
    same = [cosine(voices[i], voices[j]) for i, j in pairs if clips[i].speaker == clips[j].speaker]
    other = [cosine(voices[i], voices[j]) for i, j in pairs if clips[i].speaker != clips[j].speaker]
    assert np.mean(same) > np.mean(other) + 0.15
    assert np.median(same) > max(other)


@pytest.mark.integration
def test_quiet_speech_has_the_same_voice_and_silence_one_too(speaker_encoder):
    encoder, waveform = SpeakerEncoder.load(speaker_encoder), real_clips(1)[0].waveform
    assert cosine(encoder.embed(waveform * 0.1), encoder.embed(waveform * 0.01)) > 0.999
    assert np.isfinite(encoder.embed(np.zeros(100, np.float32))).all()


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(ModelReferenceError, match=r"weights\.pt is not a GE2E speaker encoder"):
        SpeakerEncoder.load(tmp_path / "weights.pt")
