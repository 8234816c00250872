"""Damaged, hostile and mismatched checkpoint files end in one clear error, and nothing is left behind."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.released.convert import import_checkpoints
from spiritlm_core.speech.released.hubert import parse_convolutions

HUBERT = "speech_tokenizer/hubert_25hz/mhubert_base_25hz.pt"
QUANTIZER = "speech_tokenizer/hubert_25hz/L11_quantizer_500.pt"
PITCH = "speech_tokenizer/vqvae_f0_quantizer/model.pt"
PITCH_CONFIG = "speech_tokenizer/vqvae_f0_quantizer/config.yaml"
STYLE = "speech_tokenizer/style_encoder_w2v2/pytorch_model.bin"
STYLE_CONFIG = "speech_tokenizer/style_encoder_w2v2/config.json"
WEIGHTS = {HUBERT: "model_weight", QUANTIZER: "model_weight", PITCH: "model", STYLE: None}
SAMPLE = {
    HUBERT: "encoder.layers.3.fc1.weight",
    QUANTIZER: "2.weight",
    PITCH: "vq.level_blocks.0.k",
    STYLE: "classifier.weight",
}
ALL = pytest.mark.parametrize("name", list(WEIGHTS))


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["EVIL_MARK"],)


def change(path: Path, edit: Callable[[dict], Any]) -> None:
    content = torch.load(path, weights_only=True)
    content = edit(content) or content
    torch.save(content, path)


def weights(content: dict, name: str) -> dict:
    key = WEIGHTS[name]
    return content if key is None else content[key]


def refused(root: Path, *words: str) -> str:
    """The one-line message of an import, which must hold `words` and leave nothing."""
    out = root.parent / "out"
    with pytest.raises(ModelReferenceError) as caught:
        import_checkpoints(root, out)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message
    assert len(message) < 600
    assert sorted(path.name for path in root.parent.iterdir()) == [root.name]
    return message


@ALL
def test_missing_tensor(copy: Path, name: str) -> None:
    change(copy / name, lambda content: weights(content, name).__delitem__(SAMPLE[name]))
    refused(copy, Path(name).name, "lacks", SAMPLE[name])


@ALL
def test_unexpected_tensor(copy: Path, name: str) -> None:
    change(copy / name, lambda content: weights(content, name).update({"extra.weight": torch.zeros(2)}))
    if "hubert_base" in name:  # pre-training leaves tensors behind; the released loader drops them, too
        assert import_checkpoints(copy, copy.parent / "imported").fresh
    else:
        refused(copy, Path(name).name, "extra.weight")


@ALL
@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda tensor: tensor[1:], "shape"),
        (lambda tensor: tensor.to(torch.int32), "int32"),
        (lambda tensor: tensor.clone().fill_(float("nan")), "NaN"),
        (lambda tensor: tensor / 0, "infinity"),
        (lambda tensor: tensor.to_sparse(), "dense"),
        (lambda tensor: tensor.tolist(), "not a tensor"),
    ],
)
def test_wrong_tensor(copy: Path, name: str, edit: Callable[[torch.Tensor], object], word: str) -> None:
    def swap(content: dict) -> None:
        found = weights(content, name)
        found[SAMPLE[name]] = edit(found[SAMPLE[name]])

    change(copy / name, swap)
    refused(copy, Path(name).name, SAMPLE[name], word)


@ALL
def test_pickle_with_code_is_not_run(copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = copy / "evil"
    monkeypatch.setenv("EVIL_MARK", str(mark))
    change(copy / name, lambda content: {**content, "extra": Evil()})
    refused(copy, Path(name).name, "mkdir", "could run code")
    assert not mark.exists()


@ALL
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated(copy: Path, name: str, keep: float) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: int(keep * len(data))])
    refused(copy, Path(name).name, "damaged or truncated")


@ALL
def test_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refused(copy, Path(name).name, "is missing")


@ALL
def test_not_a_dict(copy: Path, name: str) -> None:
    torch.save([1, 2], copy / name)
    refused(copy, Path(name).name, "another kind of file")


def test_compressed_archive(copy: Path) -> None:
    with zipfile.ZipFile(copy / QUANTIZER) as old:
        entries = {entry: old.read(entry) for entry in old.namelist()}
    with zipfile.ZipFile(copy / QUANTIZER, "w", zipfile.ZIP_DEFLATED) as new:
        for entry, data in entries.items():
            new.writestr(entry, data)
    refused(copy, "compressed")


def test_tensors_larger_than_their_file(copy: Path) -> None:
    """A few bytes can claim to be any number of weights: every row is the same one."""

    def expand(content: dict) -> None:
        found = weights(content, HUBERT)
        for name in found:
            found[name] = torch.zeros(1).expand(found[name].shape)

    change(copy / HUBERT, expand)
    refused(copy, "claims", "the file has only")


def test_quantizer_of_impossible_sizes(copy: Path) -> None:
    change(copy / QUANTIZER, lambda content: content["model_cfg"].update(upstream_dim=16_384))
    refused(copy, "L11_quantizer_500.pt", "which cannot be")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder_layers", 10**9),
        ("encoder_embed_dim", 10**12),
        ("encoder_ffn_embed_dim", 10**12),
        ("conv_pos", 10**9),
        ("encoder_attention_heads", 7),
        ("layer_type", "conformer"),
        ("activation_fn", "relu"),
        ("encoder_layers", "twelve"),
        ("conv_feature_layers", "[(32,10,5)] + [(32,3,2)] * 4"),
        ("conv_feature_layers", "[(32,10,5)] + [(32,3,2)] * 7"),
        ("conv_feature_layers", "__import__('os').system('true')"),
        ("conv_feature_layers", "[(32,10,5)] * 10**12"),
        ("conv_feature_layers", "[(999999999,10,5)]"),
        ("conv_feature_layers", 7),
    ],
)
def test_impossible_hubert_configuration(copy: Path, field: str, value: object) -> None:
    change(copy / HUBERT, lambda content: content["model_cfg"].update({field: value}))
    refused(copy, "mhubert_base_25hz.pt: model_cfg", field)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("model_cfg", "label_rate", None), ("task_cfg", "normalize", True), ("task_cfg", "sample_rate", 8000)],
)
def test_other_conventions(copy: Path, part: str, field: str, value: object) -> None:
    def edit(content: dict) -> None:
        content[part].pop(field)
        if value is not None:
            content[part][field] = value

    change(copy / HUBERT, edit)
    refused(copy, part, field)


def test_quantizer_of_another_hubert(copy: Path) -> None:
    change(copy / QUANTIZER, lambda content: content["model_cfg"].update(dim=32, upstream_dim=32))
    refused(copy, "L11_quantizer_500.pt", "model_cfg.dim is 32")


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda config: config.update(features="mel"), "features"),
        (lambda config: config["encoder_params"].update(downs_t=[3]), "multiply to 8"),
        (lambda config: config["encoder_params"].update(width=10**12), "width"),
        (lambda config: config["encoder_params"].update(depth=10**9), "depth"),
        (lambda config: config["encoder_params"].update(width=17), "shape"),
        (lambda config: config["vq_params"].update(l_bins=10**12), "l_bins"),
        (lambda config: config["encoder_params"].update(downs_t=[[4]]), "downs_t"),
        (lambda config: config.pop("vq_params"), "vq_params"),
    ],
)
def test_impossible_pitch_configuration(copy: Path, edit: Callable[[dict], object], word: str) -> None:
    config = yaml.safe_load((copy / PITCH_CONFIG).read_text())
    edit(config)
    (copy / PITCH_CONFIG).write_text(yaml.safe_dump(config))
    refused(copy, "vqvae_f0_quantizer", word)


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.mkdir [evil]", "- 1", "a: &a [*a]", "\x00"])
def test_pitch_configuration_that_is_none(copy: Path, text: str) -> None:
    (copy / PITCH_CONFIG).write_text(text)
    refused(copy, "config.yaml")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("hidden_size", 10**12),
        ("conv_dim", [24] * 10_000),
        ("conv_stride", [5, 2, 2, 2, 2, 2, 1]),
        ("model_type", "hubert"),
        ("hidden_size", 64),
        ("id2label", {str(i): str(i) for i in range(1000)}),
    ],
)
def test_impossible_style_configuration(copy: Path, field: str, value: object) -> None:
    config = json.loads((copy / STYLE_CONFIG).read_text())
    (copy / STYLE_CONFIG).write_text(json.dumps({**config, field: value}))
    refused(copy, "style_encoder_w2v2", "shape" if (field, value) == ("hidden_size", 64) else field)


def test_style_configuration_that_is_none(copy: Path) -> None:
    for text in ("{", "[1]", "[" * 100_000):
        (copy / STYLE_CONFIG).write_text(text)
        refused(copy, "config.json")


def test_base_needs_no_expressive_parts(copy: Path) -> None:
    (copy / PITCH).unlink()
    refused(copy, "is missing", "base variant")
    assert import_checkpoints(copy, copy.parent / "out", "base").variant == "base"


def test_convolutions() -> None:
    found = parse_convolutions("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)]*3")
    assert [layer.kernel for layer in found] == [10, 3, 3, 3, 3, 2, 2, 2]
    assert found[0] == (512, 10, 5)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "()", "[1]", "[(1,2)]", "[(1,2,True)]", "[(1,2,-3)]", "[(1,2,3.0)]", "[x for x in y]", "(1,2,3) * 3",
     "[(1,2,3)] * [2]", "2 * 2", "[(1,2,3)] - [(1,2,3)]", "[(1,2,3)] * -1", "[(1,2,3)] * 33", "(" * 900, "[(0,1,1)]",
     "[(1,1,1)] ** 2", "lambda: 1", "[(1,2,3)][0]", "1" * 999, "\x00", "[(1,2,3)]" + " " * 1000 + "x"],
)  # fmt: skip
def test_what_is_no_list_of_convolutions(text: str) -> None:
    with pytest.raises(ValueError, match="it is not|it has|is not|joins"):
        parse_convolutions(text)


@given(st.text(alphabet="[](),+*0123456789 a_.'", max_size=60))
def test_any_text_is_a_list_or_a_value_error(text: str) -> None:
    try:
        layers = parse_convolutions(text)
    except ValueError:
        return
    assert 1 <= len(layers) <= 32
