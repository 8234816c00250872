"""``spiritlm generate`` on a small model of our own."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spiritlm_core.lm.generate.content import Speech, Text
from tests.lm import corpora
from tests.support.small_model import TINY

TOKENS = "[St2][Pi3][Hu1]"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the size of the tests."""
    from spiritlm_core.lm.config import LmConfig
    from spiritlm_core.lm.model.network import build_model
    from spiritlm_core.tokens.hf import save_tokenizer, vocabulary_for

    folder = tmp_path_factory.mktemp("cli")
    text = corpora.tokenizer(corpora.sentences(100), folder / "tokenizer")
    vocabulary = vocabulary_for(text, corpora.SIZES)
    build_model(LmConfig(architecture=TINY), vocabulary, context_length=128).save_pretrained(folder / "model")
    save_tokenizer(text, vocabulary, folder / "model")
    return folder / "model"


@pytest.fixture
def spiritlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Run the command as a user would: exit status, standard output, standard error."""
    command = importlib.import_module("spiritlm_core.cli.app").command

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spiritlm", "generate", *map(str, arguments)])
        status = command()
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def asked(spiritlm: Callable, model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """What the model is asked when the command gets these arguments."""
    from spiritlm_core import SpiritLM

    seen: list = []
    ask = SpiritLM.generate

    def spy(self: SpiritLM, inputs: list, *rest: object, **options: object) -> object:
        seen.append((inputs, options))
        return ask(self, "x", *rest, max_new_tokens=1)

    monkeypatch.setattr(SpiritLM, "generate", spy)

    def run(*arguments: object) -> tuple[list, dict]:
        code, _, error = spiritlm(model, *arguments)
        assert code == 0, error
        return seen.pop()

    return run


def described(part: Text | Speech) -> tuple[str, object]:
    if isinstance(part, Text):
        return "text", part.text
    return ("tokens", part.tokens) if part.tokens is not None else ("audio", part.audio)


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_answers(spiritlm: Callable, model: Path) -> None:
    code, out, error = spiritlm(model, "press one", TOKENS, "--output", "speech", "--max-new-tokens", 6)
    assert (code, error) == (0, "")
    assert out.startswith("[")
    code, said, _ = spiritlm(model, "press one", TOKENS, "--output", "speech", "--max-new-tokens", 6, "--json")
    answer = json.loads(said)
    assert (code, answer["new_tokens"], answer["finish"]) == (0, 6, "length")
    assert "".join(segment["tokens"] for segment in answer["segments"]) == out.strip()
    hot = ["--temperature", 5, "--top-p", 0.9, "--seed"]
    one, two = (spiritlm(model, "press", "--output", "text", *hot, seed)[1] for seed in (1, 2))
    assert one == spiritlm(model, "press", "--output", "text", *hot, 1)[1] != two
    whole = spiritlm(
        model, "--prompt", f"[Text] press one[Speech]{TOKENS}", "--output", "speech", "--max-new-tokens", 6
    )
    assert whole[1] == out


def test_parts_keep_their_order(asked: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "a clip"
    clip.write_bytes(b"RIFF")
    inputs, _ = asked("one", "--speech", TOKENS, "--audio", clip, "two", f"--text={clip}", clip, "[Hu1] [Hu2]")
    wanted = [("text", "one"), ("tokens", TOKENS), ("audio", clip), ("text", "two"), ("text", str(clip))]
    assert [described(part) for part in inputs] == [*wanted, ("audio", clip), ("tokens", "[Hu1] [Hu2]")]
    for data, found in [
        (b"hello\n", ("text", "hello")),
        (TOKENS.encode() + b"\n", ("tokens", f"{TOKENS}\n")),
        (b"RIFF\0\0", ("audio", b"RIFF\0\0")),
    ]:
        stdin(monkeypatch, data)
        assert described(asked("-")[0][0]) == found
        stdin(monkeypatch, data)
        assert described(asked("--audio", "-")[0][0]) == ("audio", data)
    stdin(monkeypatch, TOKENS.encode())
    assert described(asked("--text", "-")[0][0]) == ("text", TOKENS)


def test_shots(asked: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    shots = tmp_path / "shots.jsonl"
    shots.write_text(
        json.dumps({"audio": "a.wav", "text": "one"}) + "\n\n" + json.dumps({"text": "two", "speech": TOKENS})
    )
    spoken, written = [("audio", tmp_path / "a.wav"), ("tokens", TOKENS)], [("text", "one"), ("text", "two")]
    for output, pairs in (("text", zip(spoken, written, strict=True)), ("speech", zip(written, spoken, strict=True))):
        _, options = asked(TOKENS, "--shots", shots, "--output", output)
        assert [(described(a), described(b)) for a, b in options["shots"]] == list(pairs)


def test_errors_are_one_line(spiritlm: Callable, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots = tmp_path / "shots.jsonl"
    shots.write_text('{"text": "one"}')
    missing = tmp_path / "missing.jsonl"
    missing.write_text('{"text": "one", "audio": "gone.wav"}')
    stdin(monkeypatch, b"\xff")
    for arguments, message in [
        ([tmp_path, "x"], "not the folder of a model"),
        ([tmp_path / "nothing", "x"], "not a folder"),
        ([model, "gone.wav"], "gone.wav: no such file"),
        ([model, "--audio", "gone"], "gone: no such file"),
        ([model, "--text", "-"], "not UTF-8"),
        ([model, "[Hu99]"], "not a speech token"),
        ([model, "press " * 300], "context is 128"),
        ([model, "x", "--prompt", "y"], "not both"),
        ([model, "x", "--top-p", "0"], "top_p"),
        ([model, "x", "--shots", shots], "needs --output"),
        ([model, "x", "--shots", shots, "--output", "text"], "shots.jsonl:1: a shot is"),
        ([model, "x", "--shots", missing, "--output", "text"], "there is no file"),
        ([model, "x", "--shots", tmp_path / "no", "--output", "text"], "cannot be read"),
        ([model, "x", "--variant", "base"], "is not the base model"),
    ]:
        code, out, error = spiritlm(*arguments)
        assert (code, out, error.count("\n")) == (1, "", 1), error
        assert message in error
    for wrong in (["--text"], ["--output", "video"], ["--dtype", "int8"]):
        assert spiritlm(model, "x", *wrong)[0] == 2
