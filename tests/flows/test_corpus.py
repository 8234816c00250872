"""`spiritlm corpus`, and recipes with texts: which stages there are, what is planned again when a file is added."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flows.stages import STAGES, stages_for, wanted_stages
from tasks.run import Run
from tasks.texts import plan_documents
from typer.testing import CliRunner

from flows.recipes import find_recipe
from spiritlm_core.cli.main import app
from spiritlm_core.config import FrozenConfig
from spiritlm_core.config_files import load_config
from spiritlm_core.errors import RecipeError, SourceError, SpiritLMError
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import StageCall, TablePlan
from spiritlm_core.lake.run import run_shard
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.recipe import Recipe
from spiritlm_core.tokens.text_stage import DocumentsStage
from tasks.progress import Console
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
    names = [stage.name for stage in wanted_stages(texts)]
    assert [name for name in names if name not in ("documents", "text")] == [s.name for s in wanted_stages(without)]
    assert names.index("documents") < names.index("tokenizer") < names.index("text") < names.index("examples")
    for stage in STAGES:
        assert config_json(stage.config(texts)) == config_json(stage.config(without))
    assert {"documents", "text"} < {stage.name for stage in stages_for(texts, ["model"])}
    assert not {"documents", "text"} & {stage.name for stage in stages_for(without, ["model"])}
    assert all(not recipe.texts for recipe in map(find_recipe, ("quickstart", "base", "expressive")))


def test_a_wrong_text_source_names_key_and_line() -> None:
    with pytest.raises(RecipeError, match=r"line 11: texts\.0\.colum: unknown key"):
        load_config(
            Recipe,
            RECIPE + "texts:\n  - {path: books, colum: body}\n".replace("\n  -", " [").replace("}\n", "}]\n"),
            "x",
        )


def plan(lake: Lake, recipe: Recipe) -> TablePlan:
    spec = next(stage for stage in STAGES if stage.name == "documents")
    return plan_documents(lake, recipe, StageCall.of(spec.cls, spec.config(recipe), {}))


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


def test_optional_tables_are_read_where_a_recipe_makes_them(lake: Lake) -> None:
    recipe = load_config(Recipe, RECIPE, "x")
    run = Run(recipe, lake, Console())
    ref = lake.read_ref("small", "sequences")
    assert ref is not None
    sequences = lake.read_snapshot("sequences", ref.target)
    run.snapshots["sequences"] = sequences
    run.artifacts["tokenizer"] = "ab" * 32
    spec = next(stage for stage in STAGES if stage.name == "examples")
    alone = run.plan_table(spec.cls, spec.config(recipe), spec.models(recipe))
    run.snapshots["text"] = Snapshot("text", "x", tuple(sequences.shards) * 2)
    both = run.plan_table(spec.cls, spec.config(recipe), spec.models(recipe))
    assert both.jobs[: len(alone.jobs)] == alone.jobs
    assert [job.parents[0][0] for job in both.jobs] == ["sequences", "text", "text"]
    model = next(stage for stage in STAGES if stage.name == "model")
    planned = run.plan_artifact(model.cls, model.config(recipe), model.models(recipe), pinned=False)
    assert set(planned.inputs) == {"sequences", "text"}
