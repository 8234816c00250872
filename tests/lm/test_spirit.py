from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from spiritlm_core import SpiritLM
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.content import Prompt, Speech, SpeechSegment, Text, TextSegment
from spiritlm_core.lm.generate.fewshot import Judged, log_likelihoods, predict
from spiritlm_core.lm.generate.formats import pieces
from spiritlm_core.tokens.hf import load_vocabulary
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
    assert vocabulary.unit_id("Hu", 3) in ids[0].tolist()
    out = model.generate(ids, max_new_tokens=5, do_sample=False)
    assert out.shape[1] <= ids.shape[1] + 5
    record = json.loads((published / "training.json").read_text())
    assert record["vocabulary"] == vocabulary.fingerprint()
    assert record["embedding_rows"] == model.config.vocab_size
    assert len(pq.read_table(published / "metrics.parquet")) == record["steps"] == 30


def test_the_usual_lines_of_transformers(published: Path) -> None:
    """A batch that is padded gives what each prompt gives alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(published), AutoTokenizer.from_pretrained(published)
    for settings in (model.config, model.generation_config):
        assert (settings.pad_token_id, settings.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    texts = ["[Text] press one", "[Speech][Hu3][Pi2][Hu1][Hu7][Text] please enter", "[Text] a"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    together = model.generate(**inputs, max_new_tokens=9, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    for text, row in zip(texts, together.tolist(), strict=True):
        one = tokenizer(text, return_tensors="pt")
        alone = model.generate(**one, max_new_tokens=9, do_sample=False)[0, one["input_ids"].shape[1] :].tolist()
        assert row[: len(alone)] == alone
        assert set(row[len(alone) :]) <= {tokenizer.pad_token_id}


def test_generation_in_each_modality(published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    answer = spirit.generate(["press one"], "speech", max_new_tokens=15)
    (speech,) = answer
    assert isinstance(speech, SpeechSegment)
    assert (speech.kind, answer.finish) == ("speech", "length")
    assert len(answer.ids) == 15
    assert spirit.layout.speech_ids(speech.tokens) == list(answer.ids)
    assert speech.units.hubert.tolist() == [int(unit) for unit in re.findall(r"\[Hu(\d+)", speech.tokens)]
    units = Units(np.array([1, 1, 2, 7]), np.array([3, 4]), np.array([2]))
    spoken = spirit.generate([("speech", units)], "text", max_new_tokens=8)
    same = spirit.generate([("speech", "[St2][Pi3][Hu1][Pi4][Hu2][Hu7]")], "text", max_new_tokens=8)
    assert spoken == same
    assert {part.kind for part in same} <= {"text"}
    mixed = spirit.generate([("text", "press"), speech], max_new_tokens=30)
    assert len(mixed.ids) <= 30
    assert json.loads(json.dumps(mixed.to_dict()))["new_tokens"] == len(mixed.ids)


def wild(folder: Path) -> SpiritLM:
    """A model that would say nothing but units which its speech tokenizer, of 24 units, does not have."""
    spirit = SpiritLM.from_pretrained(folder)
    with torch.no_grad():
        head = spirit.model.get_output_embeddings().weight
        first = spirit.vocabulary.unit_id("Hu", 24)
        head[:first] *= 1e-3
        head[first : first + 36] *= 50
    return spirit


def most(tokens: str) -> int:
    return max(int(unit) for unit in re.findall(r"\[Hu(\d+)", tokens))


@pytest.mark.parametrize("loaded", [False, True])
def test_a_unit_that_the_speech_tokenizer_lacks_is_never_said(base: Path, loaded: bool) -> None:
    """In batches, token by token, behind solved examples, in any modality, forced or not."""
    from spiritlm_core.lm.generate.fewshot import write

    spirit = wild(base)
    assert not loaded or spirit.speech_tokenizer.speakable == {"hubert": 24}
    options = {"max_new_tokens": 40, "temperature": 3.0}
    answers = spirit.generate_batch(["press one", "two"], "speech", **options)
    answers += spirit.generate_batch(["press one", "two"], "any", force=False, **options)
    answers.append(spirit.generate("three", "speech", shots=[("one", ("speech", "[Hu50][Hu3]"))], **options))
    streamed = [piece.tokens for piece in spirit.generate_stream("press one", "speech", **options)]
    said = [*(part.tokens for answer in answers for part in answer if part.kind == "speech"), "".join(streamed)]
    said += write(spirit, spirit.prompt_ids(["press one"], "speech"), "speech", 40)
    assert len(said) >= 5
    assert all(most(tokens) < 24 for tokens in said if "[Hu" in tokens)
    assert any("[Hu" in tokens for tokens in said)


def test_without_a_speech_tokenizer_every_unit_may_be_said(published: Path) -> None:
    spirit = wild(published)
    assert spirit.lacking == []
    assert most(spirit.generate("press one", "speech", max_new_tokens=40, temperature=3.0)[0].tokens) >= 24


def test_a_vocoder_with_fewer_units_decides(speaking: Path, tmp_path: Path) -> None:
    from spiritlm_core.speech.folder import TokenizerFolder

    shutil.copytree(speaking, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "speech_tokenizer" / "vocoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "units": 7}))
    assert TokenizerFolder.read(tmp_path).speakable == {"hubert": 7}
    spirit = wild(tmp_path)
    assert most(spirit.generate("press one", "speech", max_new_tokens=40, temperature=3.0)[0].tokens) < 7


def test_every_way_to_write_a_prompt(published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    vocabulary = spirit.vocabulary
    tokens = "[St2][Pi3][Hu1]"
    forms = [
        ["press one", Speech(tokens=tokens)],
        (Text("press one"), SpeechSegment(tokens)),
        [("TEXT", "press one"), ("Speech", tokens)],
        iter([TextSegment("press one"), ("speech", Units(np.array([1, 1]), np.array([3]), np.array([2])))]),
        Prompt(f"[Text] press one[Speech]{tokens}[Text]"),
    ]
    ids = spirit.prompt_ids(forms, "text")
    assert all(other == ids[0] for other in ids)
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    words = spirit.layout.encode(" press one")[len(start) :]
    speech = spirit.layout.speech_ids(tokens)
    marked = [*start, vocabulary.text_marker, *words, vocabulary.speech_marker, *speech, vocabulary.text_marker]
    assert ids[0] == marked
    assert (
        spirit.prompt_ids(["press one", ("text", "press one"), Text("press one")])
        == [marked[: len(start) + 1 + len(words)]] * 3
    )
    shots = [("press", Speech(tokens="[Hu5]"))]
    (shown,) = spirit.prompt_ids([["press one"]], "speech", shots)
    (written,) = spirit.prompt_ids([["press", ("speech", "[Hu5]"), "press one"]], "speech")
    assert shown == written


def test_a_batch_is_each_prompt_alone(published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    batch = ["press one", ["for sales", Speech(tokens="[Hu1][Hu2]")], Prompt("[Speech][Hu3]")]
    options: dict[str, Any] = {"max_new_tokens": 25, "temperature": 0.8, "top_p": 0.9, "seed": 3}
    together = spirit.generate_batch(batch, "any", **options)
    assert together == [spirit.generate(part, "any", **options) for part in batch]
    assert together == spirit.generate_batch(batch, "any", batch_size=1, **options)
    assert together[0] != spirit.generate(batch[0], "any", **{**options, "seed": 4})


def test_an_answer_that_goes_on_with_the_speech_of_the_prompt(published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    prompt = ["press", Speech(tokens="[Hu4][Hu1][Hu2]")]
    (segment,) = spirit.generate(prompt, "speech", max_new_tokens=5)
    assert segment.continues == "[Hu4][Hu1][Hu2]"
    (fresh,) = spirit.generate("press", "speech", max_new_tokens=5)
    assert fresh.continues == ""


def test_streaming_gives_the_same_answer(published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    segments = 0
    for seed in range(12):
        options: dict[str, Any] = {"max_new_tokens": 40, "temperature": 3.0, "seed": seed}
        answer = spirit.generate("press one", "any", **options)
        streamed = list(spirit.generate_stream("press one", "any", **options))
        assert "".join(p.tokens for p in streamed if p.kind == "speech") == answer.tokens
        text = "".join(p.text for p in streamed if p.kind == "text")
        assert text.replace(" ", "") == answer.text.replace(" ", "") or "\ufffd" in answer.text
        segments = max(segments, len(answer))
    assert segments > 2
    written = "[Text] press é漢🙂 one[Speech][St2][Pi3][Hu1][Text] zwölf🙂"
    shown = list(pieces(spirit.layout, spirit.layout.encode(written)))
    assert "".join(p.content for p in shown) == " press é漢🙂 one[St2][Pi3][Hu1] zwölf🙂"
    assert not any("\ufffd" in p.content for p in shown)


@pytest.mark.parametrize("text", ["say [Speech] now", "[Hu12]", "[Text] a", "press[Hu1][Pi2]one", "</s> <s>", "plain"])
def test_a_text_that_reads_like_a_token_is_text_in_prompts_shots_and_labels(published: Path, text: str) -> None:
    from spiritlm_core.lm.generate.fewshot import judged

    spirit = SpiritLM.from_pretrained(published)
    vocabulary, speech = spirit.vocabulary, Speech(tokens="[Hu5]")
    (ids,) = spirit.prompt_ids([[Text(text)]], "text")
    written = [i for i in ids if i < vocabulary.text_size]
    assert spirit.layout.text(written) == f" {text}"
    assert [i for i in ids if i >= vocabulary.text_size] == [vocabulary.text_marker]
    (shown,) = spirit.prompt_ids([speech], "text", shots=[(speech, text)])
    assert shown == [
        vocabulary.speech_marker, vocabulary.unit_id("Hu", 5), vocabulary.text_marker, *written,
        vocabulary.speech_marker, vocabulary.unit_id("Hu", 5), vocabulary.text_marker,
    ]  # fmt: skip
    assert list(judged(spirit, [("speech", "[Hu5]")], "text", text).answer) == written
    marked = spirit.layout.encode("[Text] say[Speech][Hu5]")
    assert [i for i in marked if i >= vocabulary.text_size] == [vocabulary.text_marker, *shown[:2]]


def test_shots_and_stops_end_an_answer(published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    shots = [(Speech(tokens="[Hu5]"), "press one")]
    found = spirit.generate_batch(
        [Speech(tokens="[Hu1]")] * 60, "text", shots=shots, temperature=20.0, max_new_tokens=60
    )
    assert {answer.finish for answer in found} & {"stop"}
    assert all(spirit.vocabulary.speech_marker not in answer.ids for answer in found)
    with pytest.raises(SpiritLMError, match="hello"):
        spirit.generate("x", stop=["hello"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tempature": 5}, "no option tempature: temperature may be meant"),
        ({"max_tokens": 5}, "max_new_tokens"),
        ({"do_sample": True}, "no option do_sample: there is max_new_tokens, temperature"),
        ({"temperature": "hot"}, "option temperature: .*not 'hot'"),
        ({"temperature": float("nan")}, "option temperature"),
        ({"temperature": 1e308}, "option temperature"),
        ({"top_p": 0}, "option top_p"),
        ({"stop": "[Text]"}, "option stop"),
        ({"shots": ["one"]}, "option shots.0"),
    ],
)
def test_options_that_there_are_not_are_errors(published: Path, options: dict[str, Any], message: str) -> None:
    spirit = SpiritLM.from_pretrained(published, "cpu")
    for call in (
        lambda: spirit.generate("press", **options),
        lambda: spirit.generate_batch(["press"], **options),
        lambda: spirit.generate_stream("press", **options),
    ):
        with pytest.raises(SpiritLMError, match=message):
            call()


@pytest.mark.parametrize("text", ["\ud800", 5, b"x", None])
def test_what_is_no_text_is_an_error(text: Any) -> None:
    for kind in (Text, Prompt):
        with pytest.raises(SpiritLMError, match="string of Unicode characters"):
            kind(text)


def test_dtype_and_variant_of_our_folders(published: Path) -> None:
    assert SpiritLM.from_pretrained(published, "cpu").model.dtype == torch.float32
    assert SpiritLM.from_pretrained(published, "cpu", "bfloat16", "expressive").model.dtype == torch.bfloat16
    with pytest.raises(ModelReferenceError, match="is not the base model"):
        SpiritLM.from_pretrained(published, "cpu", variant="base")


def test_wrong_prompts_and_folders_are_clear_errors(published: Path, tmp_path: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    for wrong in ("[Hu60]", "[Hu1", "hello", "[Text]"):
        with pytest.raises(SpiritLMError):
            spirit.generate([("speech", wrong)], "text")
    for part in (("video", "x"), 5, ("text", 5), None):
        with pytest.raises(SpiritLMError, match="prompt part"):
            spirit.generate([part], "text")
    with pytest.raises(SpiritLMError, match="output"):
        spirit.generate("x", "video")
    with pytest.raises(SpiritLMError, match="one of audio"):
        Speech()
    with pytest.raises(SpiritLMError, match="speech tokenizer"):
        spirit.generate(np.zeros(16_000, np.float32), "text")
    with pytest.raises(SpiritLMError, match="context"):
        spirit.generate("press " * 500, "text")
    with pytest.raises(SpiritLMError):
        SpiritLM.from_pretrained(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(published, damaged)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(ModelReferenceError, match="damaged"):
        SpiritLM.from_pretrained(damaged)


@pytest.mark.parametrize("left", [5, 500, -5])
def test_weights_that_are_cut_short_are_one_error(published: Path, tmp_path: Path, left: int) -> None:
    from spiritlm_core.lm.model.network import load_pretrained

    folder = tmp_path / "cut"
    shutil.copytree(published, folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    for load in (SpiritLM.from_pretrained, load_pretrained):
        with pytest.raises(ModelReferenceError, match="cut/model.safetensors"):
            load(folder)


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


def test_answers_that_share_a_pass_are_as_likely_as_each_alone(published: Path) -> None:
    spirit = SpiritLM.from_pretrained(published)
    random, size = np.random.default_rng(0), spirit.vocabulary.size

    def drawn(length: int) -> tuple[int, ...]:
        return tuple(random.integers(1, size, length).tolist())

    prompts = [drawn(n) for n in (1, 7, 30)]
    asked = [Judged(prompt, drawn(n)) for prompt in prompts for n in (1, 1, 2, 5, 30, 40, 70)]
    random.shuffle(asked)
    alone = predict(spirit.model, [(*one.prompt, *one.answer) for one in asked])
    wanted = [-found.nats[len(one.prompt) - 1 :].sum() for one, found in zip(asked, alone, strict=True)]
    found = log_likelihoods(spirit, [*asked, *asked[:3]])
    np.testing.assert_allclose(found, [*wanted, *wanted[:3]], rtol=1e-5)
    assert found[:3].tolist() == found[-3:].tolist()
