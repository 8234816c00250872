"""Answers that this project gave on a day when it gave those of the released code, on checkpoints of its own.

The shared parity data (tests/released) say what is right; they are not in the repository. These guard the same code
everywhere. After a change that is meant: ``python -m tests.parity.test_parity`` records them anew, which is right
only where tests/released passes.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiritlm_core import SpeechTokenizer, SpiritLM
from spiritlm_core.lm.generate.content import Speech, SpeechSegment, TextSegment
from spiritlm_core.speech.released.convert import import_checkpoints
from tests.parity.checkpoints import write_checkpoints, write_language_model
from tests.speech.synthetic import speech

ANSWERS = Path(__file__).with_name("answers.json")
LENGTHS = (1280, 16_000, 31_999, 64_321)
VARIANTS = ("base", "expressive")
STREAMS = ("hubert", "pitch", "style")
TEXTS = ("press one", " Two  spaces, and it's 10 o'clock.", "naïve café 中", "[Text]one[Speech][Hu3][Hu4]", "</s>")
NEW = 12
EVERY = 331
"""Of a waveform every so many samples are kept."""


def loaded(folder: Path, variant: str) -> SpiritLM:
    """The seeded models of a variant, the speech tokenizer imported."""
    imported = import_checkpoints(write_checkpoints(folder / variant, variant), folder / f"{variant}-imported", variant)
    speech_tokenizer = SpeechTokenizer.from_pretrained(imported.folder, device="cpu")
    model = write_language_model(folder / f"{variant}-lm", variant)
    return SpiritLM.from_pretrained(model, "cpu", "float32", variant, speech_tokenizer)


def clip_answers(tokenizer: SpeechTokenizer, number: int) -> dict[str, Any]:
    """Units of a clip of speech-like sound, their string, and the string read back."""
    units = tokenizer.encode(speech(number, 5.0)[: LENGTHS[number]])
    streams = {name: getattr(units, name).tolist() for name in STREAMS if getattr(units, name) is not None}
    string = tokenizer.to_string(units)
    back = tokenizer.from_string(string)
    return {"units": streams, "string": string, "read_back": {name: getattr(back, name).tolist() for name in streams}}


def spoken(tokenizer: SpeechTokenizer, string: str, speaker: int | None) -> dict[str, Any]:
    """How many samples the sound of a string has, and some of them."""
    waveform = tokenizer.decode(string, speaker)
    return {"samples": len(waveform), "some": [round(float(value), 5) for value in waveform[::EVERY]]}


def _said(part: TextSegment | SpeechSegment) -> str:
    return part.tokens if isinstance(part, SpeechSegment) else part.text


def asked(spirit: SpiritLM, heard: str) -> dict[str, Any]:
    """Ids of texts, of prompts of texts and speech for every kind of answer, and what is answered."""
    texts = {text: spirit.layout.encode(text) for text in TEXTS}
    prompts: list[Any] = [["press one"], [Speech(tokens=heard)], ["press", Speech(tokens=heard), "two."]]
    ids = {output: spirit.prompt_ids(prompts, output) for output in ("text", "speech", "any")}
    said = {output: [_said(part) for part in spirit.generate(prompts[2], output, max_new_tokens=NEW)] for output in ids}
    return {"texts": texts, "prompts": ids, "said": said}


def answers(spirit: SpiritLM, strings: list[str] | None = None) -> dict[str, Any]:
    """All answers of a variant; `strings` of the clips where they are not to be its own."""
    tokenizer = spirit.speech_tokenizer
    assert tokenizer is not None
    clips = [clip_answers(tokenizer, number) for number in range(len(LENGTHS))]
    strings = strings or [clip["string"] for clip in clips]
    speakers = [None, 3] if "[Pi" in strings[0] else [None]
    sounds = [spoken(tokenizer, strings[2], speaker) for speaker in speakers]
    return {"clips": clips, "sounds": sounds, "asked": asked(spirit, strings[1])}


@cache
def kept() -> dict[str, Any]:
    """What was answered then."""
    body: dict[str, Any] = json.loads(ANSWERS.read_text(encoding="utf-8"))
    return body


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is answered here."""
    folder = tmp_path_factory.mktemp("parity")
    strings = {variant: [clip["string"] for clip in kept()[variant]["clips"]] for variant in VARIANTS}
    return {variant: answers(loaded(folder, variant), strings[variant]) for variant in VARIANTS}


CASES = [(variant, number) for variant in VARIANTS for number in range(len(LENGTHS))]


@pytest.mark.parametrize(("variant", "number"), CASES)
def test_units(given: dict[str, Any], variant: str, number: int) -> None:
    """A frame between two units may go to either on another machine: one of a hundred may differ."""
    here, then = (source[variant]["clips"][number]["units"] for source in (given, kept()))
    assert here.keys() == then.keys() == set(STREAMS[: 1 if variant == "base" else 3])
    for name, units in then.items():
        assert len(here[name]) == len(units), name
        assert np.not_equal(here[name], units).sum() <= len(units) // 100, name


@pytest.mark.parametrize(("variant", "number"), CASES)
def test_strings(given: dict[str, Any], variant: str, number: int) -> None:
    """Whatever the units are; the strings are read and written as then."""
    here, then = (source[variant]["clips"][number] for source in (given, kept()))
    back = SpeechTokenizer.from_string(then["string"])
    assert {name: getattr(back, name).tolist() for name in then["read_back"]} == then["read_back"]
    if here["units"] == then["units"]:
        assert (here["string"], here["read_back"]) == (then["string"], then["read_back"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_sounds(given: dict[str, Any], variant: str) -> None:
    for here, then in zip(given[variant]["sounds"], kept()[variant]["sounds"], strict=True):
        assert here["samples"] == then["samples"]
        np.testing.assert_allclose(here["some"], then["some"], atol=1e-3)


@pytest.mark.parametrize("what", ["texts", "prompts", "said"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_language_model(given: dict[str, Any], variant: str, what: str) -> None:
    assert given[variant]["asked"][what] == kept()[variant]["asked"][what]


def test_answers_tell_models_apart() -> None:
    """What is the same for every clip, silent or constant would guard nothing."""
    for variant in VARIANTS:
        clips = kept()[variant]["clips"]
        for name in clips[0]["units"]:
            assert len(set(clips[-1]["units"][name])) > (1 if name == "style" else 3), name
        assert all(np.std(sound["some"]) > 1e-3 for sound in kept()[variant]["sounds"])


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        all_answers = {variant: answers(loaded(Path(name), variant)) for variant in VARIANTS}
    ANSWERS.write_text(json.dumps(all_answers, separators=(",", ":")) + "\n", encoding="utf-8")
