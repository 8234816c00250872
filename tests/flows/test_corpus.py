"""`spiritlm corpus`, and recipes with texts: which stages there are, what is planned again when a file is added."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.graphs.speech_lm import speech_lm
from flows.recipes import find_recipe
from spiritlm_core.cli.app import app
from spiritlm_core.config import FrozenConfig
from spiritlm_core.config_files import load_config
from spiritlm_core.errors import RecipeError, SourceError, SpiritLMError
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import TablePlan
from spiritlm_core.lake.run import run_shard
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.plan.graph import plan_graph
from spiritlm_core.recipe import Recipe
from spiritlm_core.tokens.text_stage import DocumentsStage
from tests.tokens import tokenizers_for_tests as make
from tests.tokens.finished import RECIPE, small_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("small")
    (root / "small.yaml").write_text(RECIPE)
    return small_lake(root / "lake", make.byte_level(root / "gpt2", "gpt2"), texts=False)[0]


def spiritlm(lake: Lake, command: str, *arguments: str, **env: str) -> str:
    recipe = Path(lake.uri).parent / "small.yaml"
    done = CliRunner().invoke(app, ["corpus", command, str(recipe), "--lake", lake.uri, *arguments], env=env)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_preview_prints_words_and_tokens_without_colours_into_a_pipe(lake: Lake) -> None:
    shown = spiritlm(lake, "preview", "--count", "2", "--width", "60")
    assert "\x1b" not in shown
    assert shown.count("interleaved, recording") == 2
    assert "[Text] " in shown
    assert "\n[Speech]\n" in shown
    assert all(len(line) <= 60 for line in shown.splitlines() if not line.startswith(("1.", "2.")))
    assert "…" in shown
    assert "…" not in spiritlm(lake, "preview", "--count", "2", "--width", "0")
    documents = [json.loads(line) for line in spiritlm(lake, "preview", "--json", "--stream", "speech").splitlines()]
    assert [document["stream"] for document in documents] == ["speech"] * 3
    assert spiritlm(lake, "preview", "--seed", "4") != spiritlm(lake, "preview")


def test_export_says_what_it_wrote(lake: Lake, tmp_path: Path) -> None:
    meta = json.loads(spiritlm(lake, "export", "--out", str(tmp_path / "a"), "--tokens", "1000", "--json"))
    assert meta["seed"] == 3  # lm.seed
    assert meta["out"] == str(tmp_path / "a")
    assert (tmp_path / "a/data/train-00000.parquet").is_file()
    assert "sequences of 128 in 1 files" in spiritlm(lake, "export", "--out", str(tmp_path / "b"))
    with pytest.raises(SpiritLMError, match="exclude each other"):
        spiritlm(lake, "export", "--out", str(tmp_path / "c"), "--tokens", "9", "--epochs", "1")
    with pytest.raises(SpiritLMError, match="--force"):
        spiritlm(lake, "export", "--out", str(tmp_path / "a"))


def with_texts(*paths: Path | str, name: str = "small") -> Recipe:
    listed = json.dumps([{"path": str(path), "piece_bytes": 100} for path in paths])
    return load_config(Recipe, RECIPE.replace("name: small", f"name: {name}") + f"texts: {listed}\n", "small.yaml")


def test_texts_add_two_stages_and_nothing_else_changes() -> None:
    without, texts = load_config(Recipe, RECIPE, "x"), with_texts("books")
    more, less = speech_lm(texts).nodes, speech_lm(without).nodes
    names = list(more)
    assert [name for name in names if name not in ("documents", "text")] == list(less)
    assert names.index("documents") < names.index("tokenizer") < names.index("text") < names.index("model")
    for name, node in less.items():
        assert config_json(node.config) == config_json(more[name].config)
    assert {table.name for table in more["model"].tables} == {"sequences", "text"}
    assert {table.name for table in less["model"].tables} == {"sequences"}
    assert all(not recipe.texts for recipe in map(find_recipe, ("quickstart", "base", "expressive")))


def test_a_wrong_text_source_names_key_and_line() -> None:
    with pytest.raises(RecipeError, match=r"line 11: texts\.0\.colum: unknown key"):
        load_config(
            Recipe,
            RECIPE + "texts:\n  - {path: books, colum: body}\n".replace("\n  -", " [").replace("}\n", "}]\n"),
            "x",
        )


def plan(lake: Lake, recipe: Recipe) -> TablePlan:
    planned = plan_graph(speech_lm(recipe), lake, "documents").stages["documents"]
    assert isinstance(planned, TablePlan)
    return planned


def execute(lake: Lake, recipe: Recipe) -> Snapshot:
    made = plan(lake, recipe)
    stage = DocumentsStage(FrozenConfig(), {})
    entries = tuple(run_shard(lake, made.call, stage, job)[0] for job in made.jobs)
    snapshot = Snapshot(made.name, made.call.identity, entries, made.lineage)
    lake.write_snapshot(snapshot)
    lake.write_ref(recipe.name, "documents", "table", snapshot.fingerprint, made.call.identity)
    return snapshot


def test_an_added_file_makes_new_shards_and_old_ones_keep_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spiritlm_core.intake.config import ShardingConfig

    monkeypatch.setattr("spiritlm_core.intake.pieces.SHARDING", ShardingConfig(shard_items=2))
    lake, folder = Lake(tmp_path / "lake"), tmp_path / "texts"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(f'{{"text": "document {i}"}}\n' for i in range(30)))
    recipe = with_texts(folder)
    first = execute(lake, recipe)
    assert len(first.shards) > 2
    assert first.totals.rows_out == 30
    assert not plan(lake, recipe).missing(lake)
    assert plan(lake, with_texts(folder, name="other")).fingerprint == first.fingerprint
    (folder / "b.txt").write_text("one more")
    assert len(plan(lake, recipe).missing(lake)) == 1
    second = execute(lake, recipe)
    assert set(first.keys) < set(second.keys)
    (folder / "b.txt").rename(folder / "z.txt")
    assert plan(lake, recipe).fingerprint == second.fingerprint
    (folder / "z.txt").unlink()
    assert plan(lake, recipe).fingerprint == first.fingerprint


def test_no_texts_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "readme.rst").write_text("x")
    with pytest.raises(SourceError, match="no text documents found in .*name .txt, .jsonl or .parquet"):
        plan(Lake(tmp_path / "lake"), with_texts(tmp_path))
