"""Converting once: what is written, when nothing is done, and what is never overwritten."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.speech.released import hubert
from spiritlm_core.speech.released.convert import import_checkpoints
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.support.released import PARITY

Roots = Callable[[str], Path]


def test_only_the_blocks_in_use_are_kept(imported: Roots) -> None:
    from safetensors import safe_open

    for preset, projection in (("tiny", False), ("alt", True)):
        with safe_open(imported(preset) / "hubert/model.safetensors", framework="numpy") as file:
            names = set(file.keys())
            weight = file.get_tensor("feature_projection.projection.weight")
        blocks = {int(name.split(".")[2]) for name in names if name.startswith("encoder.layers.")}
        assert blocks == set(range(hubert.LAYER))
        assert np.array_equal(weight, np.eye(*weight.shape)) == projection
        assert not any("final_proj" in name or "label_embs" in name for name in names)


def test_the_second_time_nothing_is_done(imported: Roots, official: Roots) -> None:
    out = imported("tiny")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = import_checkpoints(official("tiny") / "speech_tokenizer", out)
    assert (again.fresh, again.variant) == (False, "expressive")
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    record = json.loads((out / "config.json").read_text())
    assert (record["origin"], record["variant"], record["source"]["digest"]) == ("released", "expressive", again.digest)


def test_what_is_there_is_not_overwritten(official: Roots, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ModelReferenceError, match="--force"):
        import_checkpoints(official("tiny"), out, "base")
    assert (out / "thesis.txt").read_text() == "mine"
    assert import_checkpoints(official("tiny"), out, "base", force=True).fresh
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "hubert", "quantizer"]
    (out / "hubert/model.safetensors").unlink()
    assert import_checkpoints(official("tiny"), out, "base", force=True).fresh
    for inside in (official("tiny"), official("tiny").parent):
        with pytest.raises(ModelReferenceError, match="checkpoints themselves"):
            import_checkpoints(official("tiny"), inside, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_what_was_there(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_checkpoints(copy, out, "base")
    path = copy / "speech_tokenizer/hubert_25hz/L11_quantizer_500.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelReferenceError, match="damaged"):
        import_checkpoints(copy, out, "base", force=True)
    assert SpeechTokenizer.from_pretrained(out, device="cpu").variant == "base"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["official", "out"]


def test_old_archives_and_other_precisions_are_read(copy: Path, tmp_path: Path) -> None:
    path = copy / "speech_tokenizer/hubert_25hz/L11_quantizer_500.pt"
    content = torch.load(path, weights_only=True)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    import_checkpoints(copy, tmp_path / "old", "base")
    content["model_weight"] = {name: tensor.double() for name, tensor in content["model_weight"].items()}
    torch.save(content, path)
    import_checkpoints(copy, tmp_path / "double", "base")
    files = [tmp_path / name / "quantizer/linear.safetensors" for name in ("old", "double")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_official_folders_load_and_are_converted_once(
    official: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SPIRITLM_CHECKPOINTS_DIR", str(official("tiny")))
    clip = PARITY / "wavs" / "edge_2000.wav"
    roots = [None, official("tiny"), official("tiny") / "speech_tokenizer"]
    found = [SpeechTokenizer.from_pretrained(root, device="cpu").encode(clip) for root in roots]
    assert all(np.array_equal(units.pitch, found[0].pitch) for units in found)
    assert len(list((tmp_path / "spiritlm" / "released").iterdir())) == 1
    assert SpeechTokenizer.from_pretrained(variant="base", device="cpu").variant == "base"


def test_variants(imported: Roots, official: Roots, tmp_path: Path) -> None:
    assert SpeechTokenizer.from_pretrained(imported("tiny"), "base", "cpu").encode(np.zeros(2000)).style is None
    import_checkpoints(official("tiny"), tmp_path / "base", "base")
    with pytest.raises(ModelReferenceError, match="no pitch and no style"):
        SpeechTokenizer.from_pretrained(tmp_path / "base", "expressive")
    with pytest.raises(ModelReferenceError, match="no variant 'large'"):
        SpeechTokenizer.from_pretrained(imported("tiny"), "large")
    with pytest.raises(ModelReferenceError, match="SPIRITLM_CHECKPOINTS_DIR"):
        SpeechTokenizer.from_pretrained(tmp_path / "nowhere")


def test_forms_of_audio(tokenizer: Callable[[str, str], SpeechTokenizer]) -> None:
    loaded, clip = tokenizer("tiny", "base"), PARITY / "wavs" / "rate8k_hello-world.wav"
    want = loaded.encode(clip).hubert.tolist()
    import soundfile

    samples, rate = soundfile.read(clip, dtype="float32")
    stereo = np.stack([samples, np.zeros_like(samples)])
    forms = [str(clip), clip.read_bytes()]
    assert [loaded.encode(form).hubert.tolist() for form in forms] == [want, want]
    assert loaded.encode(torch.from_numpy(samples).double().requires_grad_(), rate).hubert.tolist() == want
    assert loaded.encode(stereo, rate, channel=0).hubert.tolist() == want
    for audio, options, message in (
        (stereo, {"channel": 2}, "no channel 2"),
        (samples.astype(np.int16), {}, "float"),
        (clip, {"sample_rate": 8000}, "its own"),
        (b"no audio", {}, "the audio: "),
        (clip.with_name("nothing.wav"), {}, "nothing.wav: cannot be read"),
        (samples * np.nan, {}, "finite"),
    ):
        with pytest.raises(SpiritLMError, match=message):
            loaded.encode(audio, **options)
