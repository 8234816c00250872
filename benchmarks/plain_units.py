"""What `benchmarks/units.py` compares with: a plain loop, the work that it does, and models of the official sizes."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2ForSequenceClassification

from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.encoders.encoder import layer_frames
from spiritlm_core.speech.encoders.registry import load_encoder
from spiritlm_core.speech.pitch.coder import PitchCoder
from spiritlm_core.speech.pitch.config import PitchArchitecture, PitchConfig
from spiritlm_core.speech.pitch.f0 import bundled_fcpe, melody
from spiritlm_core.speech.pretraining.config import PAPER_CONVOLUTIONS
from spiritlm_core.speech.quantizers.kmeans import KMeans
from spiritlm_core.speech.quantizers.quantizer import load_quantizer

Seconds = dict[str, float]


@contextmanager
def timed(seconds: Seconds, part: str) -> Iterator[None]:
    """For a block, or as a decorator for a function."""
    began = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began


LAYER, CENTRES = 11, 500
_KERNELS, _STRIDES = PAPER_CONVOLUTIONS["conv_kernels"], PAPER_CONVOLUTIONS["conv_strides"]


class PlainExtractor:
    """HuBERT and wav2vec 2.0 as they come from `transformers`, one clip at a time, float32."""

    def __init__(self, folder: Path, *, expressive: bool) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.quantizer = load_quantizer(folder / "quantizer")
        config = HubertConfig.from_pretrained(folder / "hubert")
        config.num_hidden_layers = self.quantizer.layer
        self.hubert = HubertModel.from_pretrained(folder / "hubert", config=config).eval().to(self.device)
        # What a pre-norm encoder ends in is not part of a block's output.
        if config.do_stable_layer_norm:
            self.hubert.encoder.layer_norm = torch.nn.Identity()
        self.expressive = expressive
        if expressive:
            self.pitch = PitchCoder.load(folder / "pitch", self.device)
            style = Wav2Vec2ForSequenceClassification.from_pretrained(folder / "style")
            self.style = style.eval().to(self.device)

    @torch.inference_mode()
    def encode(self, waveform: np.ndarray, seconds: Seconds) -> dict[str, Any]:
        """Units of one clip of at most 100 s, adding to `seconds` what each part takes."""
        samples = torch.from_numpy(waveform).to(self.device)[None]
        with timed(seconds, "encoder"):
            frames = self.hubert(samples).last_hidden_state[0].cpu().numpy()
        with timed(seconds, "quantize"):
            units: dict[str, Any] = {"hubert": self.quantizer.assign(frames)}
        if self.expressive:
            with timed(seconds, "pitch"):
                units["pitch"] = self.pitch.encode(self.pitch.contour(melody(waveform, self.device), len(waveform)))
            with timed(seconds, "style"):
                units["style"] = self._style(samples)
        return units

    def _style(self, samples: torch.Tensor) -> np.ndarray:
        normal = (samples - samples.mean()) / torch.sqrt(samples.var(correction=0) + 1e-7)
        frames = self.style.projector(self.style.wav2vec2(normal).last_hidden_state)[0]
        seconds = torch.stack([second.mean(dim=0) for second in torch.split(frames, 50)])
        return np.asarray(self.style.classifier(seconds).argmax(dim=-1).cpu())

    def gflop_per_second(self) -> float:
        """Multiplications and additions of all matrix products, in thousand millions for one second of audio."""
        seconds, fcpe = 10, 0
        samples = torch.zeros(1, seconds * SAMPLE_RATE, device=self.device)
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            self.hubert(samples)
            if self.expressive:
                self._style(samples)
                fcpe = 2 * 100 * sum(p.numel() for p in bundled_fcpe("cpu").model.parameters() if p.ndim > 1)
        return float(counted.get_total_flops() / seconds + fcpe) / 1e9


def write_official_size(folder: Path, clips: list[np.ndarray]) -> None:
    """Fill `folder`; centres of the quantizer are frames of `clips`, so that units are as many as can be."""
    torch.manual_seed(0)
    config = HubertConfig(  # type: ignore[no-untyped-call]
        num_hidden_layers=LAYER,
        conv_dim=PAPER_CONVOLUTIONS["conv_channels"],
        conv_kernel=_KERNELS,
        conv_stride=_STRIDES,
        num_feat_extract_layers=len(_KERNELS),
    )
    _sharpened(HubertModel(config)).save_pretrained(folder / "hubert")
    classifier = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(num_labels=100))  # type: ignore[no-untyped-call]
    _sharpened(classifier).save_pretrained(folder / "style")
    (folder / "style" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    frames = np.concatenate(layer_frames(load_encoder(folder / "hubert", LAYER), clips, LAYER))
    rng = np.random.default_rng(0)
    centres = frames[rng.choice(len(frames), CENTRES, replace=False)]
    ones = np.ones(frames.shape[1], np.float32)
    (folder / "quantizer").mkdir()
    KMeans(centres, 0 * ones, ones, {"layer": LAYER}).save(folder / "quantizer" / "kmeans.safetensors")
    (folder / "pitch").mkdir()
    coder = PitchCoder(PitchArchitecture.fitted(PitchConfig(codes=64, width=32, depth=4, embedding=128)))
    coder.codebook.normal_()
    coder.save(folder / "pitch")


def _sharpened(model: Any) -> Any:
    """Twice the usual start: at 0.02 a random transformer hardly depends on its input."""
    for name, parameter in model.named_parameters():
        if "encoder.layers" in name and name.endswith("weight") and parameter.ndim == 2:
            parameter.data *= 2.0
    return model
