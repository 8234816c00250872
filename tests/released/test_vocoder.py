"""Waveforms equal those of the released vocoders on seeded checkpoints, also in answers; bad files are refused."""

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spiritlm_core import SpiritLM
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.content import SpeechSegment
from spiritlm_core.lm.generate.decode import Continuation
from spiritlm_core.lm.generate.prompts import read_back
from spiritlm_core.speech.released.convert import import_checkpoints
from spiritlm_core.speech.released.vocoder import convert_vocoder
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.speech.vocoder.vocoder import Vocoder
from tests.support.released import GOLDENS, PARITY, Roots, golden

TOLERANCE = 1e-4
FOLDERS = {"base": "hifigan_spiritlm_base", "expressive": "hifigan_spiritlm_expressive_w2v2"}
MODALITIES = {"TEXT": "text", "SPEECH": "speech", "ARBITRARY": "any"}
EVERY = pytest.mark.parametrize(
    ("preset", "variant"), [(p, v) for p in ("tiny", "alt") for v in ("base", "expressive")]
)
Load = Callable[[str, str], SpeechTokenizer]


@pytest.fixture(scope="session")
def speaking(whole: Roots, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A speech tokenizer with its vocoder, imported."""

    @cache
    def load(preset: str, variant: str) -> SpeechTokenizer:
        out = tmp_path_factory.mktemp("speaking") / f"{preset}-{variant}"
        import_checkpoints(whole(preset), out, variant)
        return SpeechTokenizer.from_pretrained(out, device="cpu")

    return load


def arrays(preset: str, name: str) -> dict[str, np.ndarray]:
    with np.load(PARITY / "goldens" / GOLDENS[preset] / f"{name}.npz") as file:
        return dict(file)


def assert_waveform(found: np.ndarray, case: dict, stored: dict[str, np.ndarray], name: str) -> None:
    """Type, length and every sample."""
    assert (found.dtype, found.shape) == (np.float32, (case["length"],)), name
    assert np.abs(found - stored[case["array"]]).max() < TOLERANCE, name


def as_units(fields: dict) -> SimpleNamespace:
    lists = {name: [int(unit) for unit in fields[name].split()] if name in fields else None for name in STREAMS}
    return SimpleNamespace(**lists)


STREAMS = ("hubert", "pitch", "style")


def answered(loaded: SpeechTokenizer, inputs: dict) -> np.ndarray:
    """What the inputs of a golden case give."""
    if "code" in inputs:  # a call of the vocoder itself
        return loaded.vocoder.decode(
            SimpleNamespace(hubert=inputs["code"], pitch=None, style=None),
            speaker=inputs.get("speaker_id"),
            expression=inputs.get("style_id"),
            predict_durations=inputs.get("dur_pred", True),
            collapse=not inputs.get("not_dedup_code", False),
        )
    units = inputs["string"] if "string" in inputs else as_units(inputs["units"])
    return loaded.decode(units, inputs.get("speaker_id"), predict_durations=inputs.get("dur_pred", True), seed=0)


@EVERY
def test_every_waveform(speaking: Load, preset: str, variant: str) -> None:
    loaded, stored, checked = speaking(preset, variant), arrays(preset, "vocoder"), 0
    for name, case in golden(preset, "vocoder").items():
        if not name.startswith(f"{variant}:") or "reference_error" in case:
            continue
        assert_waveform(answered(loaded, case["inputs"]), case, stored, name)
        checked += 1
    assert checked == sum(key.startswith(variant) for key in stored)


@EVERY
def test_every_duration(speaking: Load, preset: str, variant: str) -> None:
    loaded, checked = speaking(preset, variant), 0
    for name, case in golden(preset, "vocoder").items():
        inputs = case["inputs"]
        if not name.startswith(f"{variant}:") or "durations" not in case:
            continue
        hubert = SpeechTokenizer.from_string(inputs["string"]).hubert if "string" in inputs else None
        if hubert is None:
            hubert = np.array(inputs["code"] if "code" in inputs else as_units(inputs["units"]).hubert)
            if "code" in inputs and not inputs.get("not_dedup_code"):
                hubert = hubert[np.concatenate([[True], hubert[1:] != hubert[:-1]])]
        assert loaded.vocoder.durations(hubert).tolist() == case["durations"], name
        checked += 1
    assert checked >= 9


@EVERY
def test_where_the_released_code_crashes(speaking: Load, preset: str, variant: str) -> None:
    """No units, expressive without pitch, streams that do not fit: one error; string units one frame each: works."""
    loaded, messages = speaking(preset, variant), set()
    for name, case in golden(preset, "vocoder").items():
        if not name.startswith(f"{variant}:") or "reference_error" not in case:
            continue
        if name.endswith("not_predicting"):
            hubert = SpeechTokenizer.from_string(case["inputs"]["string"]).hubert
            assert len(answered(loaded, case["inputs"])) == 640 * len(hubert)
            continue
        with pytest.raises(SpiritLMError) as error:
            answered(loaded, case["inputs"])
        messages.add(str(error.value).split(":")[0])
    assert any("no HuBERT units" in message for message in messages)
    assert variant == "base" or any("needs pitch" in message for message in messages)
    assert variant == "base" or any("15 pitch units do not fit 34" in message for message in messages)
    for bad, message in (("[St1][Pi2][Hu501]", "not 501"), ("[St1][Pi2][Hu9999]", "0 to 500")):
        with pytest.raises(SpiritLMError, match=message):
            loaded.decode(bad)
    with pytest.raises(SpiritLMError, match="no speaker 4: it knows 0 to 3"):
        loaded.decode("[St1][Pi2][Hu3]", 4)


def heard(loaded: SpeechTokenizer, prompt: str, continuation: str, modality: str, speaker: int | None) -> list:
    """The parts of an answer as segments: text, or a waveform where there is something to hear."""
    parts, continues = read_back(prompt, continuation, MODALITIES[modality])
    found: list = []
    for index, (kind, content) in enumerate(parts):
        if kind == "text":
            found.append(content)
            continue
        before = continues if not index else ""
        segment = SpeechSegment(
            content[len(before) :], before, first=not index, asked=modality == "SPEECH", voice=loaded.decode
        )
        if len(waveform := segment.waveform(speaker)):
            found.append(waveform)
    return found


@EVERY
def test_reading_back(speaking: Load, preset: str, variant: str) -> None:
    loaded, stored, checked = speaking(preset, variant), arrays(preset, "generate"), 0
    for name, case in golden(preset, "readback")[variant].items():
        given = case["prompt"], case["continuation"], case["modality"], None
        if "outputs" not in case:
            with pytest.raises(SpiritLMError, match="needs pitch"):
                heard(loaded, *given)
            continue
        found = heard(loaded, *given)
        assert len(found) == len(case["outputs"]), name
        for part, want in zip(found, case["outputs"], strict=True):
            if want["type"] == "TEXT":
                assert part == want["text"]
            else:
                assert_waveform(part, want, stored, name)
                checked += 1
    assert checked == sum(key.startswith(f"{variant}:read:") for key in stored)


@EVERY
def test_answers_of_models(whole: Roots, speaking: Load, preset: str, variant: str) -> None:
    """From a prompt string to text and waveforms, wherever bfloat16 decides the greedy answer."""
    speech = speaking(preset, variant)
    model = SpiritLM.from_pretrained(whole(preset), "cpu", variant=variant, speech_tokenizer=speech)
    stored, checked = arrays(preset, "generate"), 0
    for name, case in golden(preset, "generate")[variant].items():
        outputs, new = case.get("outputs", ()), case.get("new_ids", ())
        if not any(output["type"] == "SPEECH" for output in outputs):
            continue
        banned = case["first_step"]["banned"]
        modality = "speech" if "->speech" in name or banned == 32001 else "any"
        segments = model._answer(case["input_ids"], Continuation(list(new)), modality)
        found = [s.text if s.kind == "text" else s.waveform(0 if "speaker_0" in name else None) for s in segments]
        found = [part for part in found if len(part)]
        assert len(found) == len(outputs), name
        for part, want in zip(found, outputs, strict=True):
            if want["type"] == "TEXT":
                assert part == want["text"], name
            else:
                assert_waveform(part, want, stored, name)
                checked += 1
    assert checked == sum(key.startswith(f"{variant}:") and ":read:" not in key for key in stored)
    case = golden(preset, "generate")[variant]["t->speech:20"]
    (segment,) = model.generate(prompt=case["prompt"], output="speech", max_new_tokens=20)
    assert len(segment.waveform(speaker=1)) % 640 == 0
    assert len(segment.waveform()) > 0


def test_official_folders_speak(whole: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an import by hand, each variant with its own vocoder, found and loaded when it is needed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SPIRITLM_CHECKPOINTS_DIR", str(whole("tiny")))
    want = arrays("tiny", "vocoder")["base:decode:[Hu5]"]
    loaded = SpeechTokenizer.from_pretrained(variant="base", device="cpu")
    assert loaded.has_vocoder
    assert np.abs(loaded.decode("[Hu5]") - want).max() < TOLERANCE
    assert SpiritLM.from_pretrained(whole("tiny"), "cpu", variant="base").speech_tokenizer.has_vocoder


def test_an_import_without_a_vocoder(official: Roots, whole: Roots, tmp_path: Path) -> None:
    import_checkpoints(official("tiny"), tmp_path / "mute", "base")
    mute = SpeechTokenizer.from_pretrained(tmp_path / "mute", device="cpu")
    assert not mute.has_vocoder
    with pytest.raises(ModelReferenceError, match="no vocoder/"):
        mute.decode("[Hu1]")
    import_checkpoints(whole("tiny"), tmp_path / "both", "expressive")
    base = SpeechTokenizer.from_pretrained(tmp_path / "both", "base", "cpu")
    with pytest.raises(ModelReferenceError, match="--variant base"):
        base.decode("[Hu1]")
    assert not import_checkpoints(whole("tiny"), tmp_path / "both", "expressive").fresh
    (tmp_path / "both/vocoder/model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelReferenceError, match="vocoder.model.safetensors: copy or download it anew"):
        SpeechTokenizer.from_pretrained(tmp_path / "both", device="cpu").decode("[Hu1]")
    (tmp_path / "both/vocoder/model.safetensors").unlink()
    assert import_checkpoints(whole("tiny"), tmp_path / "both", "expressive", force=True).fresh


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["EVIL_MARK"],)


def edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def reweigh(folder: Path, change: Callable[[dict], object]) -> None:
    content = torch.load(folder / "generator.pt", weights_only=True)
    change(content["generator"])
    torch.save(content, folder / "generator.pt")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
    "no weights": (lambda f: (f / "generator.pt").unlink(), "generator.pt is missing"),
    "cut off": (lambda f: (f / "generator.pt").write_bytes((f / "generator.pt").read_bytes()[:9999]), "truncated"),
    "hostile": (lambda f: torch.save({"generator": Evil()}, f / "generator.pt"), "could run code"),
    "other dict": (lambda f: torch.save({"model": {}}, f / "generator.pt"), "no dict 'generator'"),
    "missing": (lambda f: reweigh(f, lambda w: w.pop("ups.1.bias")), "lacks the tensor ups.1.bias"),
    "extra": (lambda f: reweigh(f, lambda w: w.update(x=torch.ones(1))), "has the tensor x"),
    "shape": (lambda f: reweigh(f, lambda w: w.update({"spkr.weight": torch.ones(3, 16)})), "has shape"),
    "nan": (lambda f: reweigh(f, lambda w: w["dict.weight"][7].fill_(torch.nan)), "NaN"),
    "zero direction": (lambda f: reweigh(f, lambda w: w["conv_pre.weight_v"].zero_()), "no direction"),
    "wrong rate": (lambda f: edit(f, upsample_rates=[5, 4, 4, 4, 4]), "multiply to 1280"),
    "odd kernel": (lambda f: edit(f, upsample_kernel_sizes=[10, 8, 8, 8, 4]), "kernel of 10"),
    "width": (lambda f: edit(f, model_in_dim=64), "model_in_dim is 64"),
    "no number": (lambda f: edit(f, embedding_dim="many"), "embedding_dim"),
    "huge": (lambda f: edit(f, upsample_initial_channel=10**9), "upsample_initial_channel"),
    "too few units": (lambda f: edit(f, num_embeddings=500), "has shape"),
    "short hop": (lambda f: edit(f, num_f0_tokens=8, f0_hop_size=100), "pitch_frames: Input should be"),
    "other hop": (lambda f: edit(f, code_hop_size=320), "code_hop_size"),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_bad_folders(whole: Roots, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_MARK", str(tmp_path / "evil"))
    source = whole("tiny") / "speech_tokenizer" / FOLDERS["base"]
    folder = Path(shutil.copytree(source, tmp_path / "hifigan"))
    damage, message = DAMAGE[what]
    damage(folder)
    with pytest.raises(ModelReferenceError, match=message) as error:
        convert_vocoder(folder, tmp_path / "out")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "out").exists()


def test_half_a_vocoder_is_named(whole: Roots, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole("tiny") / "speech_tokenizer", tmp_path / "root"))
    (root / FOLDERS["base"] / "generator.pt").unlink()
    with pytest.raises(ModelReferenceError, match="do without a vocoder"):
        import_checkpoints(root, tmp_path / "out", "base")


def test_a_vocoder_without_the_blank(whole: Roots, tmp_path: Path) -> None:
    """If the table of the released one has 500 rows, unit 500 is refused, and the others are what they were."""
    source = whole("tiny") / "speech_tokenizer" / FOLDERS["base"]
    folder = Path(shutil.copytree(source, tmp_path / "hifigan"))
    edit(folder, num_embeddings=500)
    reweigh(folder, lambda w: w.update({"dict.weight": w["dict.weight"][:500].clone()}))
    convert_vocoder(folder, tmp_path / "out")
    convert_vocoder(source, tmp_path / "whole")
    small, large = Vocoder.load(tmp_path / "out", "cpu"), Vocoder.load(tmp_path / "whole", "cpu")
    units = SpeechTokenizer.from_string("[Hu499][Hu3]")
    assert np.array_equal(small.decode(units), large.decode(units))
    with pytest.raises(SpiritLMError, match="0 to 499, not 500"):
        small.decode(SpeechTokenizer.from_string("[Hu500][Hu3]"))
