"""A tiny corpus of tones: one pitch of tone, one unit and one word for each number word, and a tiny Llama."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import HubertConfig, HubertModel

from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.evaluate.heldout.answers import Evaluated
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.config import StyleConfig
from spiritlm_core.speech.fits import QuantizerFit, StyleFit
from spiritlm_core.speech.pitch.coder import PitchCoder
from spiritlm_core.speech.pitch.config import PitchArchitecture, PitchConfig
from spiritlm_core.speech.quantizers.config import QuantizerStageConfig
from tests.evaluate.clips import rows_of_clips
from tests.evaluate.corpora import Corpus, evaluate, make_corpus, make_model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are faster without other threads to wait for."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def model_folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), corpus)


@pytest.fixture(scope="session")
def evaluated(model_folder: Path) -> Evaluated:
    return Evaluated.load(model_folder)


@pytest.fixture(scope="session")
def evaluation(corpus: Corpus, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    evaluate(corpus, model_folder, out)
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """HuBERT of two iterations and a pitch model, neither trained; a quantizer and a style model fitted on train."""
    audio, folder = TableView.of(table_of(rows_of_clips(), AUDIO)), tmp_path_factory.mktemp("models")
    found = {role: folder / role for role in ("hubert", "quantizer", "pitch", "style")}
    for path in found.values():
        path.mkdir()
    _hubert(found["hubert"], seed=1)
    _hubert(found["hubert"] / "iterations" / "1", seed=0)
    torch.manual_seed(0)
    coder = PitchCoder(PitchArchitecture.fitted(PitchConfig(codes=8, width=8, embedding=4)))
    coder.codebook = torch.randn_like(coder.codebook)
    coder.save(found["pitch"])
    fits = {"quantizer": (QuantizerFit, QuantizerStageConfig(units=20)), "style": (StyleFit, StyleConfig(clusters=4))}
    for name, (stage, config) in fits.items():
        stage(config, found).build({"audio": audio}, found[name], folder / "work", lambda *_: None)
    return found


def _hubert(folder, seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    convolutions = {"conv_dim": (32, 32), "conv_kernel": (240, 7), "conv_stride": (80, 8)}
    position = {"num_conv_pos_embeddings": 15, "num_conv_pos_embedding_groups": 2}
    HubertModel(HubertConfig(**sizes, **convolutions, **position)).save_pretrained(folder)
