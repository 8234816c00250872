"""The released language models on seeded checkpoints: ids, prompts, bans, greedy answers, read-back, bad folders."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from spiritlm_core import SpiritLM
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.content import Speech, SpeechSegment, Text, TextSegment
from spiritlm_core.lm.generate.decode import Options, generate
from spiritlm_core.lm.generate.formats import StringFormat
from spiritlm_core.lm.generate.prompts import (
    Modality,
    audible,
    ends_with_speech,
    last_run,
    parse,
    read_back,
    starts_with_speech,
)
from spiritlm_core.lm.generate.sampling import forbidden_ids
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.tokens.released import ReleasedTextTokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.support.released import PARITY, Roots, golden, write_checkpoints

MODALITIES: dict[str, Modality] = {"TEXT": "text", "SPEECH": "speech", "ARBITRARY": "any"}
EVERY = pytest.mark.parametrize(
    ("preset", "variant"), [(p, v) for p in ("tiny", "alt") for v in ("base", "expressive")]
)
Load = Callable[[str, str], SpiritLM]


@pytest.fixture(scope="session")
def spirit(released: Roots, tokenizer: Callable[[str, str], SpeechTokenizer]) -> Load:
    """A loaded model with its speech tokenizer."""

    @cache
    def load(preset: str, variant: str) -> SpiritLM:
        speech = tokenizer(preset, variant)
        return SpiritLM.from_pretrained(released(preset), "cpu", variant=variant, speech_tokenizer=speech)

    return load


@pytest.fixture
def folder(released: Roots, tmp_path: Path) -> Path:
    """A copy of the tiny base model that a test may damage."""
    return Path(shutil.copytree(released("tiny") / "spiritlm_model" / "spirit-lm-base-7b", tmp_path / "model"))


@EVERY
def test_ids_are_those_of_the_slow_tokenizer(spirit: Load, preset: str, variant: str) -> None:
    layout, wanted = spirit(preset, variant).layout, golden(preset, "tokenizer")[variant]
    tokenizer: ReleasedTextTokenizer = layout._tokenizer  # type: ignore[attr-defined]
    assert len(tokenizer) == wanted["length"] == layout.vocabulary.size
    assert spirit(preset, variant).model.config.vocab_size == wanted["model_vocab"]
    assert {token: tokenizer.id_of(token) or 0 for token in wanted["ids_of"]} == wanted["ids_of"]
    for case in wanted["cases"]:
        assert layout.encode(case["text"]) == case["ids"], case["text"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]
    for case in wanted["decode_cases"]:
        assert tokenizer.decode(case["ids"]) == case["decoded"]


PIECES = st.sampled_from(
    ["[Text]", "[Speech]", "[Hu5]", "[Hu501]", "</s>", "<s>", " ", "  ", "▁", "\n", "é", "漢", "a b"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=8), st.lists(st.integers(0, 32502), max_size=8))
def test_any_text_and_ids_are_read_as_by_the_slow_tokenizer(parts: list[str], ids: list[int]) -> None:
    ours, slow = slow_pair()
    text = "".join(parts)
    assert ours.encode(text) == slow(text)["input_ids"]
    assert ours.decode(ids) == slow.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@cache
def slow_pair() -> tuple:
    import transformers

    if int(transformers.__version__.split(".")[0]) > 4:
        pytest.skip("this transformers has no slow tokenizer")
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        write_checkpoints(Path(name), "tiny", "--parts", "lm")
        folder = Path(name) / "spiritlm_model" / "spirit-lm-base-7b"
        return ReleasedTextTokenizer.load(folder), transformers.LlamaTokenizer.from_pretrained(folder)


def llama_layout() -> StringFormat:
    return StringFormat(slow_pair()[0], Vocabulary(32000, 501, 0, 0))


@EVERY
def test_bans(spirit: Load, preset: str, variant: str) -> None:
    for name, want in golden(preset, "forbidden")[variant].items():
        ids = forbidden_ids(spirit(preset, variant).vocabulary, MODALITIES[name])
        assert (len(ids), hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()) == (
            want["count"],
            want["sha256_sorted_space_joined"],
        )


@EVERY
def test_prompts(spirit: Load, preset: str, variant: str) -> None:
    cases = golden(preset, "prompts")[variant]
    types = cases.pop("content_types")
    loaded = spirit(preset, variant)
    asked: dict[str, list[str]] = {}
    for name in cases:
        asked.setdefault(name.split("->")[1], []).append(name)
    for output, names in asked.items():
        batch = [[as_input(*part) for part in cases[name]["inputs"]] for name in names]
        for name, ids in zip(names, loaded.prompt_ids(batch, MODALITIES[output]), strict=True):
            assert ids == cases[name]["ids"], name
            assert ids == loaded.layout.encode(cases[name]["prompt"])
    clip = PARITY / "wavs" / "allison_is.wav"
    samples = soundfile.read(clip, dtype="float32")[0]
    given = {
        "tensor_1d": torch.from_numpy(samples),
        "tensor_1xT": torch.from_numpy(samples)[None],
        "numpy_1d": samples,
        "bytes": clip.read_bytes(),
        "Path": clip,
        "path_8k": Speech(audio=str(PARITY / "wavs" / "rate8k_hello-world.wav")),
    }
    assert set(types) <= set(given)
    for name, ids in zip(types, loaded.prompt_ids([given[name] for name in types], "text"), strict=True):
        assert ids == loaded.layout.encode(types[name]), name


def as_input(kind: str, value: str) -> object:
    return (kind, value) if kind.lower() == "text" else (kind, PARITY / "wavs" / f"{value}.wav")


def modality_of(name: str, case: dict) -> Modality:
    """What was asked for, told by its name or else by how much was banned."""
    banned = case["first_step"]["banned"]
    return "text" if "->text" in name or banned in (503, 667) else "speech" if banned else "any"


@EVERY
def test_greedy_answers(spirit: Load, preset: str, variant: str) -> None:
    loaded, checked = spirit(preset, variant), 0
    cases = {k: c for k, c in golden(preset, "generate")[variant].items() if "new_ids" in c}
    for name, case in cases.items():
        options: Options = {"modality": modality_of(name, case), "force": "unforced" not in name}
        sure = min(case["clear_prefix"], case["agrees_with_float32_for"])
        (new,) = generate(loaded.model, loaded.vocabulary, [case["input_ids"]], max_new_tokens=sure, **options)
        assert new == case["new_ids"][:sure], name
        checked += sure
    assert checked > 400


@pytest.mark.parametrize("variant", ["base", "expressive"])
def test_together_as_alone(released: Roots, variant: str) -> None:
    """Padding and neighbours change nothing but the rounding, which in float32 flips no token here."""
    loaded = SpiritLM.from_pretrained(released("tiny"), "cpu", "float32", variant)
    cases = [case for case in golden("tiny", "generate")[variant].values() if len(case.get("new_ids", ())) == 20]
    prompts = [case["input_ids"] for case in cases]
    together = generate(loaded.model, loaded.vocabulary, prompts, max_new_tokens=20, batch_size=32)
    assert together == [generate(loaded.model, loaded.vocabulary, [p], max_new_tokens=20)[0] for p in prompts]


@EVERY
def test_whole_answers(spirit: Load, preset: str, variant: str) -> None:
    """From text and recordings to segments, and what a caller's own prompt gives."""
    loaded, compared = spirit(preset, variant), 0
    for name, case in golden(preset, "generate")[variant].items():
        if not name.endswith(":20") or "outputs" not in case or "prompt" not in case or case["clear_prefix"] < 20:
            continue
        modality = modality_of(name, case)
        answer = loaded.generate(
            prompt=case["prompt"], output=modality, max_new_tokens=20, force="unforced" not in name
        )
        assert list(answer.prompt_ids) == case["input_ids"]
        if list(answer.ids) != case["new_ids"]:
            assert case["agrees_with_float32_for"] < 20
            continue
        texts = [output["text"] for output in case["outputs"] if output["type"] == "TEXT"]
        assert [part.text for part in answer if part.kind == "text"] == texts, name
        compared += 1
    assert compared >= 4
    inputs = [Text("The largest country in the world is"), PARITY / "wavs" / "allison_is.wav"]
    case = golden(preset, "generate")[variant]["ts->speech:20"]
    answer = loaded.generate(inputs, "speech", max_new_tokens=20)
    sure = min(case["clear_prefix"], case["agrees_with_float32_for"])
    assert list(answer.prompt_ids) == case["input_ids"]
    assert list(answer.ids[:sure]) == case["new_ids"][:sure]
    (segment,) = answer
    assert isinstance(segment, SpeechSegment)
    assert loaded.layout.speech_ids(segment.tokens) == list(answer.ids)
    streamed = "".join(part.content for part in loaded.generate_stream(inputs, "speech", max_new_tokens=20))
    assert streamed == segment.tokens


@EVERY
def test_streamed_text_is_the_text(spirit: Load, preset: str, variant: str) -> None:
    loaded = spirit(preset, variant)
    text = "".join(part.content for part in loaded.generate_stream("One two three", "text", max_new_tokens=20))
    assert text.strip() == loaded.generate("One two three", "text", max_new_tokens=20).text


@pytest.mark.parametrize("preset", ["tiny", "alt"])
def test_helpers_of_reading_back(preset: str) -> None:
    for string, want in golden(preset, "helpers").items():
        assert starts_with_speech(string) == want["starts_with_speech_token"], string
        assert ends_with_speech(string) == want["ends_with_speech_token"], string
        assert last_run(string) == want["last_speech_start"], string
        assert [[content, kind[0]] for kind, content in parse(string)] == want["parse"], string


@EVERY
def test_reading_back(preset: str, variant: str) -> None:
    lengths = 0
    for name, case in golden(preset, "readback")[variant].items():
        if "outputs" not in case:
            continue
        parts, continues = read_back(case["prompt"], case["continuation"], MODALITIES[case["modality"]])
        heard = []
        for index, (kind, content) in enumerate(parts):
            opened = continues if not index else ""
            if kind == "text" or case["modality"] == "SPEECH" or audible(640, content, opened, first=not index):
                heard.append((kind, content, opened))
        wanted = case["outputs"]
        assert [kind for kind, _, _ in heard] == [output["type"].lower() for output in wanted], name
        for (kind, content, opened), output in zip(heard, wanted, strict=True):
            if kind == "text":
                assert content == output["text"]
            elif opened:  # a whole number of frames, of which the front is cut off
                cut = [audible(640 * n, content, opened, first=True) for n in range(1, 400)]
                assert output["length"] in {len(kept) for kept in cut if kept is not None}, name
                lengths += 1
    assert lengths >= 4


def test_a_root_or_a_bare_name_or_a_folder(
    released: Roots, official: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the models lies the speech tokenizer, which the first recording loads."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "root"
    root.mkdir()
    (root / "spiritlm_model").symlink_to(released("tiny") / "spiritlm_model")
    (root / "speech_tokenizer").symlink_to(official("tiny") / "speech_tokenizer")
    monkeypatch.setenv("SPIRITLM_CHECKPOINTS_DIR", str(root))
    model = SpiritLM.from_pretrained("spirit-lm-base-7b", "cpu")
    assert not (tmp_path / "cache").exists()
    want = golden("tiny", "prompts")["base"]["s->TEXT"]
    assert model.prompt_ids([PARITY / "wavs" / "allison_hello-world.wav"], "text") == [want["ids"]]
    assert model.model.dtype == torch.bfloat16
    assert SpiritLM.from_pretrained(root, "cpu").vocabulary.pitch == 64
    assert SpiritLM.from_pretrained(root / "spiritlm_model", "cpu", variant="base").vocabulary.pitch == 0
    one = SpiritLM.from_pretrained(released("tiny") / "spiritlm_model" / "spirit-lm-base-7b", "cpu", "float32")
    assert one.model.dtype == torch.float32
    with pytest.raises(ModelReferenceError, match="speech tokenizer"):
        one.generate(PARITY / "wavs" / "allison_is.wav", "text")
    with pytest.raises(ModelReferenceError, match="not the expressive"):
        SpiritLM.from_pretrained(root / "spiritlm_model" / "spirit-lm-base-7b", "cpu", variant="expressive")


def test_the_model_is_that_of_transformers(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ours = SpiritLM.from_pretrained(folder, "cpu").model
    ids = torch.tensor([[1, 29871, 32000, 1576, 10150, 4234]])
    with torch.inference_mode():
        assert torch.equal(theirs(ids).logits, ours(ids).logits)


def sharded(folder: Path, *, safe: bool) -> None:
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    stem, end = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    where = {name: f"{stem}-{1 + (i % 2):05d}-of-00002.{end}" for i, name in enumerate(weights)}
    for file in set(where.values()):
        part = {name: tensor for name, tensor in weights.items() if where[name] == file}
        save_file(part, folder / file) if safe else torch.save(part, folder / file)
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_several_files(folder: Path, safe: bool) -> None:
    whole = SpiritLM.from_pretrained(folder, "cpu").generate("hello", "any", max_new_tokens=8)
    sharded(folder, safe=safe)
    assert SpiritLM.from_pretrained(folder, "cpu").generate("hello", "any", max_new_tokens=8) == whole
    next(folder.glob("*-00002-of-00002.*")).unlink()
    with pytest.raises(ModelReferenceError, match="00002-of-00002"):
        SpiritLM.from_pretrained(folder, "cpu")


def test_speech_tokens_as_added_tokens(folder: Path, tmp_path: Path) -> None:
    """A folder that keeps them beside ``tokenizer.model`` has the same ids, one text between two tokens at a time."""
    names = SpiritLM.from_pretrained(folder, "cpu").vocabulary.tokens
    shutil.copyfile(PARITY / "llama2_tokenizer.model", folder / "tokenizer.model")
    (folder / "added_tokens.json").write_text(json.dumps({name: 32000 + i for i, name in enumerate(names)}))
    layout = SpiritLM.from_pretrained(folder, "cpu").layout
    assert layout.encode("[Text]hello[Speech][Hu500]") == [1, 32000, 22172, 32001, 32502]
    assert layout.text([22172, 3186]) == "hello world"
    (folder / "added_tokens.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {str(32000 + i): {"content": name} for i, name in enumerate(names)}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert SpiritLM.from_pretrained(folder, "cpu").layout.encode("[Text][Hu3]") == [1, 32000, 32005]
    config["added_tokens_decoder"]["32002"]["content"] = "[Hu1]"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelReferenceError, match=r"\[Hu0\] should have id 32002"):
        SpiritLM.from_pretrained(folder, "cpu")


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["EVIL_MARK"],)


def edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def put(folder: Path, value: float) -> None:
    """One weight of the second layer is `value`."""
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    torch.save(weights, folder / "pytorch_model.bin")


def cut_rows(folder: Path, rows: int) -> None:
    """The model has so many rows alone, as its configuration says."""
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:rows].clone()
    torch.save(weights, folder / "pytorch_model.bin")
    edit(folder, vocab_size=rows)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: (f / "pytorch_model.bin").unlink(), "has no weights, such as"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), "neither vocabulary.json"),
    "broken tokenizer": (lambda f: (f / "tokenizer.model").write_bytes(b"no model"), "tokenizer.model is damaged"),
    "plain llama": (
        lambda f: shutil.copyfile(PARITY / "llama2_tokenizer.model", f / "tokenizer.model"),
        "no Spirit LM",
    ),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "other kind": (lambda f: edit(f, model_type="gpt2"), "model_type gpt2 that its config.json"),
    "odd heads": (
        lambda f: edit(f, num_attention_heads=5),
        r"0.self_attn.[kqv]_proj.weight has the shape",
    ),
    "few rows": (lambda f: edit(f, vocab_size=32500), r"config.json \(vocab_size 32500\) asks for"),
    "fewer rows than tokens": (lambda f: cut_rows(f, 32400), "32503 tokens"),
    "huge": (lambda f: edit(f, hidden_size=1 << 40), "config.json: hidden_size"),
    "deep": (lambda f: edit(f, num_hidden_layers=1 << 20), "config.json: num_hidden_layers"),
    "no heads": (lambda f: edit(f, num_attention_heads=0), "config.json: num_attention_heads"),
    "text for a number": (lambda f: edit(f, hidden_size="wide"), "config.json: hidden_size.*wide"),
    "odd base": (lambda f: edit(f, rope_theta="x"), "config.json: rope_theta"),
    "no number": (lambda f: put(f, float("nan")), "layers.1.mlp.up_proj.weight holds NaN"),
    "endless": (lambda f: put(f, float("inf")), "layers.1.mlp.up_proj.weight holds NaN or infinity"),
    "other width": (
        lambda f: edit(f, hidden_size=96, num_attention_heads=4),
        r"config.json \(hidden_size 96\)",
    ),
    "other depth": (lambda f: edit(f, num_hidden_layers=3), "lacks the weights.*layers.2.*3 layers"),
    "fewer layers": (lambda f: edit(f, num_hidden_layers=1), "does not have"),
    "cut off": (
        lambda f: (f / "pytorch_model.bin").write_bytes((f / "pytorch_model.bin").read_bytes()[:9999]),
        "pytorch_model.bin is damaged or truncated",
    ),
    "hostile": (lambda f: torch.save({"x": Evil()}, f / "pytorch_model.bin"), "could run code"),
    "no tensors": (lambda f: torch.save([1], f / "pytorch_model.bin"), "not a dict"),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_bad_folders(folder: Path, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_MARK", str(tmp_path / "evil"))
    damage, message = DAMAGE[what]
    damage(folder)
    with pytest.raises(ModelReferenceError, match=message) as error:
        SpiritLM.from_pretrained(folder, "cpu")
    assert str(folder) in str(error.value)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("text", ["say [Speech] now", "[Hu12]", "[Text] a", "a</s>b <unk>", "[Pi3]\ue000[", "plain"])
@pytest.mark.parametrize("outside", [False, True], ids=["pieces", "added tokens"])
def test_a_text_that_reads_like_a_token_is_text(folder: Path, text: str, outside: bool) -> None:
    names = SpiritLM.from_pretrained(folder, "cpu").vocabulary.tokens
    if outside:
        shutil.copyfile(PARITY / "llama2_tokenizer.model", folder / "tokenizer.model")
        (folder / "added_tokens.json").write_text(json.dumps({name: 32000 + i for i, name in enumerate(names)}))
    loaded = SpiritLM.from_pretrained(folder, "cpu")
    (ids,) = loaded.prompt_ids([[Speech(tokens="[Hu5]"), Text(text)]], "text")
    behind = ids.index(32000) + 1
    assert ids[behind - 3 : behind] == [32001, 32007, 32000]
    assert not set(ids[behind:]) & {0, 1, 2}
    assert max(ids[behind:]) < 32000
    assert loaded.layout.text(ids[behind:]) == text
    marked = loaded.layout.encode("[Speech][Hu5][Text]a</s>")
    assert marked[:behind] == ids[:behind]
    assert marked[-1] == 2


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5)), max_size=8))
def test_any_text_comes_back_and_holds_no_token(parts: list[str]) -> None:
    layout, text = llama_layout(), "".join(parts).replace("▁", "")
    ids = layout.prompt([("speech", "[Hu5]"), ("text", text)], "text")
    behind = ids.index(32000) + 1
    assert not set(ids[behind:]) & {0, 1, 2}
    assert max(ids[behind:], default=0) < 32000
    assert layout.text(ids[behind:]) == text


def test_a_prompt_that_ends_like_a_speech_token_is_not_gone_on_with(folder: Path) -> None:
    loaded = SpiritLM.from_pretrained(folder, "cpu")
    for part, continues in ((Text("say [Hu5]"), ""), (Speech(tokens="[Hu5]"), "[Hu5]")):
        (prompt,) = loaded.prompt_ids([part], "any")
        (segment,) = loaded.layout.read(prompt, loaded.layout.speech_ids("[Hu6]"), "any")
        assert segment == SpeechSegment("[Hu6]", continues)


def test_bad_requests(spirit: Load, released: Roots, tmp_path: Path) -> None:
    loaded = spirit("tiny", "base")
    for wrong in ("[Pi3]", "[Hu501]", "[Hu1", "hello", "[Text]"):
        with pytest.raises(SpiritLMError):
            loaded.generate(Speech(tokens=wrong), "text")
    with pytest.raises(SpiritLMError, match="4096"):
        loaded.generate("word " * 5000, "text")
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ModelReferenceError, match=str(path)):
            SpiritLM.from_pretrained(path, "cpu")
    with pytest.raises(SpiritLMError, match="dtype"):
        SpiritLM.from_pretrained(released("tiny"), "cpu", "int8")
    with pytest.raises(SpiritLMError, match="variant"):
        SpiritLM.from_pretrained(released("tiny"), "cpu", variant="large")
    units = SimpleNamespace(hubert=np.array([1, 1, 2]), pitch=np.array([3]), style=np.array([4]))
    assert loaded.prompt_ids([units], "text") == loaded.prompt_ids([Speech(tokens="[Hu1][Hu2]")], "text")
    assert loaded.generate([TextSegment("a"), SpeechSegment("[Hu1]")], "text", max_new_tokens=2).finish == "length"
