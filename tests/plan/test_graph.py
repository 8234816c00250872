"""Graphs of stages, their plans, and runs that find everything in the lake."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from spiritlm_core.errors import RecipeError, SourceError
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.lake.fingerprint import write_object
from spiritlm_core.lake.forgotten import Tombstone
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.plan import ArtifactPlan, TablePlan
from spiritlm_core.lake.run import run_artifact
from spiritlm_core.plan.graph import Graph, plan_graph
from tasks.account import planned, reuse
from tests.lake.stages import NUMBERS, Double, DoubleConfig, Numbers, Sum, SumConfig, execute, no_progress


@dataclass(frozen=True)
class Listed:
    """The numbers that are there."""

    schema = NUMBERS
    values: tuple[int, ...]
    sharding = ShardingConfig(shard_items=2)
    lineage = property(lambda self: {"values": list(self.values)})

    def items(self, lake: Lake, say: Any) -> pa.Table:
        say(f"{len(self.values)} numbers")
        names = pa.array(map(str, self.values), pa.string())
        columns = {"key": names, "name": names, "source_uri": names, "value": pa.array(self.values, pa.int64())}
        nothing = pa.nulls(len(names), pa.string())
        return pa.table({**columns, "reject_stage": nothing, "reject_reason": nothing})

    def costs(self, items: pa.Table) -> pa.ChunkedArray:
        return pa.chunked_array([[1] * len(items)])


class PinnedSum(Sum):
    name = "kept"
    pinned = True


class Last(Sum):
    name = "last"


def graph_of(*values: int, factor: int = 2) -> Graph:
    graph = Graph("r")
    numbers = graph.source(Numbers, SumConfig(), Listed(values))
    doubled = graph.add(Double, DoubleConfig(factor=factor), numbers)
    kept = graph.add(PinnedSum, SumConfig(), numbers)
    graph.add(Last, SumConfig(), numbers, kept=kept, lineage=sorted, beside=None)
    graph.on_request(Sum, SumConfig(), numbers)
    assert doubled.parents == [numbers]
    return graph


def compute(graph: Graph, lake: Lake, **how: bool) -> dict[str, str]:
    """Do what a run does, and return the fingerprints that were planned before anything was computed."""
    stages = plan_graph(graph, lake, **how).stages
    for plan in stages.values():
        if isinstance(plan, TablePlan):
            execute(lake, plan)
        else:
            run_artifact(lake, plan, no_progress)
            lake.write_ref("r", plan.name, "artifact", plan.key, plan.call.identity)
    return {name: plan.fingerprint for name, plan in stages.items()}


def test_a_graph_holds_its_stages_in_order_and_knows_what_each_is_made_from() -> None:
    graph = graph_of(1, 2)
    assert [node.name for node in graph.wanted()] == ["numbers", "doubled", "kept", "last"]
    assert [node.name for node in graph.wanted("last")] == ["numbers", "kept", "last"]
    assert [node.name for node in graph.wanted("sum")] == ["numbers", "sum"]
    with pytest.raises(RecipeError, match="no stage 'sums' in recipe 'r'; its stages are numbers, doubled, kept"):
        graph.wanted("sums")


def test_a_graph_that_gives_a_stage_the_wrong_tables_is_refused() -> None:
    graph = Graph("r")
    numbers = graph.source(Numbers, SumConfig(), Listed((1,)))
    with pytest.raises(RecipeError, match=r"stage doubled reads \['numbers'\], the graph gives it \[\]"):
        graph.add(Double, DoubleConfig())
    doubled = graph.add(Double, DoubleConfig(), numbers)
    with pytest.raises(RecipeError, match=r"the graph gives it \['doubled', 'numbers'\]"):
        graph.add(Sum, SumConfig(), numbers, doubled)
    with pytest.raises(RecipeError, match="two stages called 'doubled'"):
        graph.add(Double, DoubleConfig(), numbers)


def test_every_key_is_planned_before_anything_is_computed(tmp_path: Path) -> None:
    lake, graph, said = Lake(tmp_path / "lake"), graph_of(1, 2, 3, -4), list[str]()
    plan = plan_graph(graph, lake, say=said.append)
    assert said == ["4 numbers"]
    assert not (tmp_path / "lake").exists()
    planned = compute(graph, lake)
    assert planned == {name: stage.fingerprint for name, stage in plan.stages.items()}
    assert plan.is_complete(lake)
    last = plan.stages["last"]
    assert isinstance(last, ArtifactPlan)
    assert last.call.models["kept"].digest == planned["kept"]
    assert last.call.models["lineage"].content == '[\n "kept",\n "numbers"\n]'
    assert set(last.call.models) == {"kept", "lineage"}


def test_circles_are_collected_again_after_a_plan_that_failed() -> None:
    def fail(line: str) -> None:
        raise SourceError(f"collecting: {gc.isenabled()}")

    with pytest.raises(SourceError, match="collecting: False"):
        plan_graph(graph_of(1), Lake("nowhere"), say=fail)
    assert gc.isenabled()


def test_a_pinned_model_stays_when_the_corpus_grows_until_it_is_fitted_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    first = compute(graph_of(1, 2), lake)
    grown = compute(graph_of(1, 2, 3), lake)
    assert grown["kept"] == first["kept"]
    assert all(grown[name] != first[name] for name in ("numbers", "doubled", "last"))
    again = compute(graph_of(1, 2, 3), lake, refit=True)
    assert again["kept"] != first["kept"]
    assert again["last"] != grown["last"]


def test_a_plan_of_before_something_was_forgotten_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, graph, anew = Lake(tmp_path / "lake"), graph_of(1, 2), []
    monkeypatch.setattr("tasks.account.plan_graph", lambda *of, **how: anew.append(of) or plan_graph(*of, **how))
    assert reuse(graph, lake) is None
    planned(graph, lake, (), False, print)
    assert len(anew) == 1
    assert reuse(graph, lake) is None
    write_object(lake.store, Tombstone("a", 1.0, ["0" * 64], [], [], [], {}))
    planned(graph, lake, (), False, print)
    assert len(anew) == 3


def test_a_run_that_finds_everything_needs_no_prefect_and_gives_the_same_account(tmp_path: Path) -> None:
    lake, graph = Lake(tmp_path / "lake"), graph_of(1, -2, 3)
    assert reuse(graph, lake) is None
    planned = compute(graph, lake)
    lake.store.delete("refs/r/last.json")
    result = reuse(graph, lake)
    assert result is not None
    assert {name: stage["fingerprint"] for name, stage in result["stages"].items()} == planned
    numbers = result["stages"]["numbers"]
    counted = (numbers["rows_in"], numbers["rows_out"], numbers["rejected"], numbers["shards_computed"])
    assert counted == (3, 2, 1, 0)
    assert result["stages"]["last"]["rows_in"] == 2
    assert result["recipe"] == "r"
    ref = lake.read_ref("r", "last")
    assert ref is not None
    assert ref.target == planned["last"]
    assert reuse(graph_of(1, -2, 3, factor=5), lake) is None
    lake.store.delete(shard_path("doubled", plan_graph(graph, lake).stages["doubled"].jobs[0].key))  # type: ignore[union-attr]
    assert reuse(graph, lake) is None


def test_a_run_with_work_to_do_takes_over_the_plan_that_was_made_before_prefect(tmp_path: Path) -> None:
    def graph(factor: int = 2) -> Graph:
        made = graph_of(1, 2, 3, factor=factor)
        made.settings = DoubleConfig(factor=factor)
        return made

    lake, listed, again = Lake(tmp_path / "lake"), "3 numbers", list[str]()
    assert reuse(graph(), lake) is None
    first = planned(graph(), lake, (), refit=False, say=again.append)
    assert again == [listed]
    anew = planned(graph(), lake, (), refit=False, say=again.append)  # it is taken over once, and may be old by then
    assert anew is not first
    for other, how in (
        (graph(5), ((), False)),
        (graph(), (("kept",), False)),
        (graph(), ((), True)),
        (graph_of(1), ((), False)),
    ):
        assert reuse(graph(), lake) is None
        fresh = planned(other, lake, how[0], refit=how[1], say=again.append)
        assert fresh.stages.keys() == {node.name for node in other.wanted(*how[0])}
        assert fresh.stages["numbers"] is not first.stages["numbers"]
    assert reuse(graph(), lake) is None
    elsewhere = Lake(tmp_path / "other")
    compute(graph(), elsewhere)
    assert planned(graph(), elsewhere, (), refit=False, say=again.append).is_complete(elsewhere)


def test_the_rows_of_a_shard_are_made_when_it_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, graph = Lake(tmp_path / "lake"), graph_of(1, 2, 3)
    compute(graph, lake)
    made = lambda *_: pytest.fail("rows were made though the shards are there")  # noqa: E731
    monkeypatch.setattr("spiritlm_core.plan.graph.ItemRows.__call__", made)
    assert plan_graph(graph, lake).is_complete(lake)


def test_a_job_that_is_sent_to_a_worker_takes_its_own_items_along_and_no_others(tmp_path: Path) -> None:
    lake, many = Lake(tmp_path / "lake"), tuple(range(400))
    first = compute(graph_of(*many), lake)
    plan = plan_graph(graph_of(*many, 400), lake).stages["numbers"]
    assert isinstance(plan, TablePlan)
    assert plan.fingerprint != first["numbers"]
    for job in (plan.jobs[0], next(job for job in plan.jobs if "400" in job.parent_keys)):
        sent = pickle.dumps(job)
        assert len(sent) < 5000  # of all it would be four times as much
        assert (again := pickle.loads(sent)).parent_keys == job.parent_keys
        assert again.rows().equals(job.rows())


def test_planning_loads_no_heavy_package(tmp_path: Path) -> None:
    code = f"""
import sys
from flows.graphs.finetuning import finetuning
from flows.graphs.speech_lm import speech_lm
from flows.recipes import load_recipe
from spiritlm_core.lake.lake import Lake
from spiritlm_core.plan.graph import plan_graph
graph = speech_lm(load_recipe("scratch", [{str(tmp_path)!r}]))
assert len(plan_graph(graph, Lake({str(tmp_path / "lake")!r})).stages) > 10
print([name for name in ("prefect", "ray", "torch", "transformers", "scipy", "av") if name in sys.modules])
"""
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
