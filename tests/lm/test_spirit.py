from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.score import stream_losses
from spiritlm_core.tokens.documents import documents
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.pack import pack
from tests.lm.conftest import tiny_config
from tests.lm.corpora import Units


def test_the_folder_is_an_ordinary_hugging_face_model(published: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(published)
    tokenizer = AutoTokenizer.from_pretrained(published)
    vocabulary = load_vocabulary(published)
    names = {path.name for path in published.iterdir()}
    assert names >= {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "vocabulary.json"}
    assert model.config.vocab_size % 16 == 0
    assert model.config.vocab_size >= vocabulary.size == len(tokenizer)
    assert model.config.eos_token_id == vocabulary.eos == tokenizer.eos_token_id
    ids = tokenizer("[Speech][Hu3][Pi2][Text] press one", return_tensors="pt")["input_ids"]
    assert vocabulary.hubert_id(3) in ids[0].tolist()
    out = model.generate(ids, max_new_tokens=5, do_sample=False)
    assert out.shape[1] <= ids.shape[1] + 5
    record = json.loads((published / "training.json").read_text())
    assert record["vocabulary"] == vocabulary.fingerprint()
    assert record["embedding_rows"] == model.config.vocab_size
    assert len(pq.read_table(published / "metrics.parquet")) == record["steps"] == 30


def test_losses_per_stream_agree_with_the_mean_and_beat_chance(published: Path, table: pa.Table) -> None:
    spirit = SpiritLM.from_pretrained(published)
    config = tiny_config().tokens
    packs = []
    for stream in ("text", "speech", "interleaved"):
        found = documents(
            TableView.of(table), spirit.vocabulary, config, stream=stream, split="held_out", seed=0, epoch=0
        )
        packs += list(pack(found, 128))
    losses = stream_losses(spirit.model, packs, spirit.vocabulary)
    assert set(losses) >= {"text", "speech", "interleaved", "interleaved/text", "interleaved/speech"}
    for stream in ("text", "speech", "interleaved"):
        parts = [losses[name] for name in losses if name.startswith(f"{stream}/")]
        assert sum(part.tokens for part in parts) == losses[stream].tokens
        assert losses[stream].nats == pytest.approx(sum(part.nats for part in parts))
        assert losses[stream].mean < math.log(spirit.vocabulary.size)
    again = stream_losses(spirit.model, packs[::-1], spirit.vocabulary, batch_size=3)
    assert again["speech"].mean == pytest.approx(losses["speech"].mean, rel=1e-4)


def test_generation_in_each_modality(published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    (speech,) = spirit.generate([("text", "press one")], "speech", max_new_tokens=15)
    assert speech.kind == "speech"
    assert len(speech.ids) <= 15
    assert spirit.speech_ids(speech.content) == list(speech.ids)
    units = Units(np.array([1, 1, 2, 7]), np.array([3, 4]), np.array([2]))
    spoken = spirit.generate([("speech", units)], "text", max_new_tokens=8)
    same = spirit.generate([("speech", "[St2][Pi3][Hu1][Pi4][Hu2][Hu7]")], "text", max_new_tokens=8)
    assert spoken == same
    assert {part.kind for part in same} <= {"text"}
    mixed = spirit.generate([("text", "press"), ("speech", speech.content)], max_new_tokens=30)
    assert sum(len(part.ids) for part in mixed) <= 30


def test_wrong_prompts_and_folders_are_clear_errors(published: Path, tmp_path: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    for wrong in ("[Hu60]", "[Hu1", "hello", "[Text]"):
        with pytest.raises(SpiritLMError):
            spirit.generate([("speech", wrong)], "text")
    with pytest.raises(SpiritLMError, match="prompt part"):
        spirit.generate([("video", "x")], "text")  # type: ignore[list-item]
    with pytest.raises(SpiritLMError):
        SpiritLM.from_pretrained(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(published, damaged)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(ModelReferenceError, match="damaged"):
        SpiritLM.from_pretrained(damaged)


def test_waveforms_of_any_shape_and_rate_become_16_khz_mono() -> None:
    from spiritlm_core.audio.waveform import as_waveform

    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32)
    mono = as_waveform(np.stack([tone, tone]), 8000)
    assert mono.shape == (16_000,)
    assert mono.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(mono - expected)[200:-200].max() < 0.02
    for wrong in (np.zeros(10, np.int16), np.zeros((1, 2, 3)), np.array([0.0, np.nan])):
        with pytest.raises(SpiritLMError, match="waveform"):
            as_waveform(wrong, 16_000)
