"""Commands that only look: recipes of both kinds, what a lake stores, what its recipes refer to."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from typer.testing import CliRunner

from flows.recipes import FINETUNE, recipe_names
from spiritlm_core.cli.app import app
from spiritlm_core.errors import LakeError, RecipeError, SpiritLMError
from spiritlm_core.lake.lake import Lake


def show(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception:
        raise done.exception
    return done.stdout


@pytest.mark.parametrize("name", [*recipe_names(), *recipe_names(FINETUNE), str(FINETUNE / "asr.yaml")])
def test_every_recipe_that_is_listed_can_be_shown(name):
    assert json.loads(show("recipes", name, "--json"))["name"] in (name, "asr")
    assert show("recipes", name).startswith("# ")


def test_a_recipe_that_is_not_there_is_refused_with_the_names_of_both_kinds():
    with pytest.raises(RecipeError, match="no recipe 'nosuch'; there are .*quickstart.*, asr, .*or give"):
        show("recipes", "nosuch")


def test_settings_go_with_either_kind():
    assert json.loads(show("recipes", "asr", "--set", "description=mine", "--json"))["description"] == "mine"
    with pytest.raises(RecipeError, match="nonsense"):
        show("recipes", "asr", "--set", "nonsense=1")


def test_lake_du_says_what_is_stored_and_status_what_recipes_refer_to(tmp_path):
    lake = Lake(tmp_path)
    for name, size in (("tables/audio/a", 3), ("tables/audio/b", 4), ("tables/words/c", 5), ("blobs/ab/cd", 7)):
        lake.store.write(f"{name}.parquet" if "tables" in name else name, bytes(size))
    used = json.loads(show("lake", "du", "--lake", tmp_path, "--json"))
    assert used["names"] == {
        "audio": {"objects": 2, "bytes": 7, "own": 7},
        "words": {"objects": 1, "bytes": 5, "own": 5},
    }
    assert (used["bytes"], used["unused"]) == (19, 19)
    assert "of which gc would delete 19 B" in show("lake", "du", "--lake", tmp_path)
    lake.write_ref("mine", "audio", "table", "0" * 64, "1" * 64)
    assert set(json.loads(show("status", "--lake", tmp_path, "--json"))["recipes"]["mine"]) == {"audio"}


NEEDS_A_LAKE = ("lake du", "lake show audio", "lake verify", "lake gc", "lineage quickstart")


@pytest.mark.parametrize("command", [*(f"{command} --lake" for command in NEEDS_A_LAKE), "explore"])
def test_a_path_that_is_no_lake_is_said_to_be_none(tmp_path, command):
    (tmp_path / "notes.txt").write_text("no lake")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(LakeError, match=f"there is no lake at {path}: name one with --lake"):
            show(*command.split(" "), path)


def test_status_says_that_there_is_no_lake_yet(tmp_path):
    assert (
        show("status", "--lake", tmp_path / "lake") == f"there is no lake at {tmp_path / 'lake'} yet: a run starts it\n"
    )
    assert json.loads(show("status", "--lake", tmp_path / "lake", "--json"))["recipes"] == {}
    assert not (tmp_path / "lake").exists()


def test_a_port_in_use_is_said_before_the_page_is_loaded(tmp_path, monkeypatch):
    Lake(tmp_path).write_ref("mine", "audio", "table", "0" * 64, "1" * 64)
    monkeypatch.setitem(sys.modules, "spiritlm_core.explore.page", None)  # whoever imports it fails
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SpiritLMError, match=f"127.0.0.1:{port} cannot be used: .*another --port"):
            show("explore", tmp_path, "--port", port)


@pytest.mark.parametrize("url", ["http://", "http:///path", "https://:80/x", "http://[", "ftp://host/x", "hooks.org/x"])
def test_a_webhook_without_a_host_is_refused(url, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(SpiritLMError, match="--webhook .*: an address such as https://"):
        show("alerts", "--webhook", url)


@pytest.mark.parametrize("url", ["http://localhost:9/x", "https://hooks.example.org/a?b", "http://me:pw@[::1]:80"])
def test_a_webhook_with_a_host_is_none_to_refuse(url, monkeypatch):
    monkeypatch.setattr("tasks.prefect_server.configured_api", lambda: None)
    with pytest.raises(SpiritLMError, match="no Prefect server is configured"):
        show("alerts", "--webhook", url)
