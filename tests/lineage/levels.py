"""A small pipeline of recordings: their levels, a pinned mean of these, and what is made with it."""

from __future__ import annotations

from pathlib import Path

from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.config import FrozenConfig
from spiritlm_core.intake.config import FolderSource, ShardingConfig
from spiritlm_core.intake.recordings import Recordings
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import TablePlan
from spiritlm_core.lake.snapshot import KeepConfig
from spiritlm_core.lake.stage import ArtifactStage, TableInput
from spiritlm_core.plan.graph import Graph, plan_graph
from tests.examples.stage import LoudnessStage
from tests.plan.lakes import compute_stage


class Mean(ArtifactStage):
    """The mean level of a corpus, kept when that changes, as unit models are."""

    name = "mean"
    about = "mean level"
    version = 1
    inputs = (TableInput("loudness"),)
    pinned = True

    def build(self, tables, out, work, progress):
        levels = [row["dbfs"] for shard in tables["loudness"].shards() for row in shard.to_pylist() if row["dbfs"]]
        (out / "mean.txt").write_text(str(sum(levels) / len(levels)))
        return {}


class Last(Mean):
    """An artifact that is made with another, from no table."""

    name = "last"
    inputs = ()
    pinned = False

    def build(self, tables, out, work, progress):
        (out / "mean.txt").write_text((self.models["mean"] / "mean.txt").read_text())
        return {}


def graph_on(clips: Path) -> Graph:
    graph = Graph("levels")
    source = FolderSource(path=str(clips.resolve()), speaker_from_folder=True)
    audio = graph.source(AudioStage, AudioConfig(), Recordings((source,), "en", ShardingConfig(shard_items=3)))
    loud = graph.add(LoudnessStage, FrozenConfig(), audio)
    mean = graph.add(Mean, FrozenConfig(), loud)
    graph.add(Last, FrozenConfig(), mean=mean)
    return graph


def run(clips: Path, lake: Lake, *, refit: bool = False, keep: KeepConfig | None = None) -> None:
    """Compute what a run computes, in this process."""
    for plan in plan_graph(graph_on(clips), lake, refit=refit).stages.values():
        compute_stage(plan, lake)
        kind = "table" if isinstance(plan, TablePlan) else "artifact"
        lake.write_ref("levels", plan.name, kind, plan.fingerprint, plan.call.identity, keep)
