"""Who speaks, where nobody says: the table `dvectors`, a vector for each recording, and the artifact `voices`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spiritlm_core.lake.schema import REJECT, SAMPLE_RATE, Row, is_rejected, passed_on, table_of
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, TableInput, TableStage
from spiritlm_core.lake.view import TableView
from spiritlm_core.quality.config import DVectorsConfig, VoicesConfig

Vectors = NDArray[np.float32]  # [N, D], each of length 1
Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # from float32[T] at 16 kHz to float32[D] of length 1

DVECTORS = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("seconds", pa.float64()),  # how much of the recording was heard
        pa.field("dvector", pa.list_(pa.float32())),  # on the first segment of a recording whose speaker has no name
        *REJECT,
    ]
)
VOICES = pa.schema(
    [
        pa.field("voice", pa.string(), nullable=False),
        pa.field("recordings", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("similarity", pa.float32()),  # mean cosine of two recordings of it; 1 if there is only one
        pa.field("nearest", pa.string()),  # the voice that is most like it, and the mean cosine with its recordings
        pa.field("nearest_similarity", pa.float32()),
        pa.field("centre", pa.list_(pa.float32())),  # mean of its d-vectors, so that a product is a mean cosine
    ]
)
_RECORDING = ("recording_id", "seconds", "dvector")


class DVectorsStage(TableStage):
    """A vector that says how each recording's voice sounds, by the model in role ``encoder``.

    A recording is taken for one voice. Where the source names a speaker there is nothing to guess.
    """

    name: ClassVar[str] = "dvectors"
    about: ClassVar[str] = "how each voice sounds whose speaker has no name"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("audio", ("utterance_id", "recording_id", "speaker", "audio", "reject_stage", "reject_reason")),
    )
    schema: ClassVar[pa.Schema] = DVECTORS
    config: DVectorsConfig

    def setup(self) -> None:
        """Load the model."""
        _ = self._embed

    @cached_property
    def _embed(self) -> Embed:
        return load_embedder(self.models["encoder"])

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row per segment; the first good one of a recording has the vector."""
        rows = tables[0].to_pylist()
        parts: dict[str, list[Row]] = {}
        for row in rows:
            if not is_rejected(row) and row["speaker"] is None:
                parts.setdefault(row["recording_id"], []).append(row)
        heard = {
            str(of[0]["utterance_id"]): self.tried({}, partial(self._heard, of))
            for of in self.counted(list(parts.values()))
        }
        return table_of(
            [
                {**passed_on(row), "recording_id": row["recording_id"], **heard.get(row["utterance_id"], {})}
                for row in rows
            ],
            DVECTORS,
        )

    def _heard(self, segments: list[Row]) -> Row:
        from spiritlm_core.audio.codec import decode_flac

        waveforms, missing = [], round(self.config.seconds * SAMPLE_RATE)
        while segments and missing > 0:
            waveforms.append(decode_flac(segments[0]["audio"])[:missing])  # type: ignore[arg-type]
            segments, missing = segments[1:], missing - len(waveforms[-1])
        waveform = np.concatenate(waveforms)
        return {"seconds": len(waveform) / SAMPLE_RATE, "dvector": self._embed(waveform).tolist()}


def load_embedder(model: Path) -> Embed:
    """The model of voices in a file of Resemblyzer's layout, or in a folder of `transformers` for x-vectors.

    Raises ModelReferenceError: it is neither.
    """
    if model.is_file():
        from spiritlm_core.evaluate.resynthesis.distances import SpeakerEncoder

        return SpeakerEncoder.load(model).embed
    return _x_vectors(model)


def _x_vectors(folder: Path) -> Embed:
    """Such as WavLM's (``microsoft/wavlm-base-plus-sv``) or wav2vec 2.0's, fine-tuned to tell speakers apart."""
    import torch
    from torch.nn.functional import normalize
    from transformers import AutoModelForAudioXVector

    from spiritlm_core.cores import pick_device
    from spiritlm_core.errors import ModelReferenceError
    from spiritlm_core.references.content import check_weights
    from spiritlm_core.speech.encoders.encoder import preprocessor

    check_weights(folder)
    scaled = preprocessor(folder).get("do_normalize", True)
    try:
        model: Any = AutoModelForAudioXVector.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelReferenceError(f"{folder} holds no model of speakers (x-vectors): {error}") from error
    model = model.to(pick_device()).eval()

    @torch.inference_mode()
    def embed(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        values = torch.from_numpy(waveform).to(model.device)[None]
        if scaled:
            values = (values - values.mean()) / (values.std() + 1e-7)
        return normalize(model(values).embeddings[0], dim=0).cpu().numpy()

    return embed


@dataclass(frozen=True)
class Voices:
    """Voices that were found: their names, and the mean of the vectors of each, float32[K, D]."""

    names: tuple[str, ...]
    centres: Vectors
    similarity: float  # least mean cosine with the recordings of a voice that one of it has
    sides: tuple[str, ...]  # the voice that each is held out with

    def nearest(self, vectors: Vectors) -> tuple[NDArray[np.int64], Vectors, Vectors]:
        """Of vectors float32[N, D]: place of the likest voice, the cosine with it, and how much less the next one has.

        Without voices, places are -1. One whose cosine is below `similarity` is another voice.
        """
        if not self.names:
            return np.full(len(vectors), -1), np.zeros(len(vectors), np.float32), np.zeros(len(vectors), np.float32)
        cosines = np.pad(vectors @ self.centres.T, ((0, 0), (0, 1)), constant_values=-1)  # one more, like nobody
        second, first = np.sort(cosines, axis=1)[:, -2:].T
        return cosines.argmax(axis=1), first, first - second

    @classmethod
    def load(cls, folder: Path) -> Voices:
        """Read what the stage `voices` wrote."""
        table = pq.read_table(folder / "voices.parquet")
        names, centres = tuple(table["voice"].to_pylist()), np.array(table["centre"].to_pylist(), np.float32)
        similarity = json.loads((folder / "voices.json").read_text())["similarity"]
        return cls(names, centres, similarity, sides(names, centres, table["recordings"].to_numpy()))


def sides(names: Sequence[str], centres: Vectors, recordings: NDArray[np.int64]) -> tuple[str, ...]:
    """The voice that each is held out with: itself, but a single recording, often a short one, goes with the likest."""
    several = np.flatnonzero(recordings > 1)
    likest = several[(centres @ centres[several].T).argmax(axis=1)] if len(several) else np.arange(len(names))
    return tuple(
        names[other] if count == 1 else name for name, other, count in zip(names, likest, recordings, strict=True)
    )


def grouped(vectors: Vectors, names: Sequence[str], similarity: float) -> list[tuple[str, NDArray[np.int64]]]:
    """Voices among vectors float32[N, D], the largest first: name, and places of its recordings.

    Agglomerative clustering with average linkage: two groups are one voice while the mean cosine between their
    recordings is at least `similarity`. A voice is called after the one of its recordings that is likest to its mean,
    so that its name says nothing of others.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if not len(vectors):
        return []
    single = len(vectors) == 1
    labels = np.ones(1) if single else fcluster(linkage(vectors, "average", "cosine"), 1 - similarity, "distance")
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    called = [(f"voice-{names[_middle(vectors, places)][:12]}", places) for places in groups]
    return sorted(called, key=lambda one: (-len(one[1]), one[0]))


def _middle(vectors: Vectors, places: NDArray[np.int64]) -> int:
    return int(places[(vectors[places] @ vectors[places].mean(axis=0)).argmax()])


class VoicesFit(ArtifactStage):
    """Groups recordings whose speakers have no names by voice; kept when the corpus grows, so no voice is renamed."""

    name: ClassVar[str] = "voices"
    about: ClassVar[str] = "recordings without a speaker's name, grouped by voice"
    version: ClassVar[int] = 1
    pinned: ClassVar[bool] = True
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("dvectors", (*_RECORDING, "reject_stage")),)
    outputs: ClassVar[tuple[Output, ...]] = (Output("voices", "voices.json", "voices.json"),)
    config: VoicesConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Write ``voices.parquet``, and how sure it is to ``voices.json``; see :class:`ArtifactStage`."""
        del work  # takes seconds: nothing to resume
        from spiritlm_core.evaluate.clips import rank

        progress(0.0, "reading d-vectors")
        shards = (shard.filter(pc.is_valid(shard["dvector"])) for shard in tables["dvectors"].shards(_RECORDING))
        rows = [row for shard in shards for row in shard.to_pylist()]
        rows = sorted(rows, key=lambda row: rank(self.config.seed, row["recording_id"]))[: self.config.recordings]
        vectors = np.array([row["dvector"] for row in rows], np.float32)
        progress(0.2, f"grouping {len(rows)} recordings")
        groups = grouped(vectors, [row["recording_id"] for row in rows], self.config.similarity)
        found = described(groups, vectors, [row["seconds"] for row in rows])
        pq.write_table(pa.Table.from_pylist(found, VOICES), out / "voices.parquet")
        summary = {"recordings": len(rows), "voices": len(found), **certainty(groups, vectors)}
        told = [{name: value for name, value in row.items() if name != "centre"} for row in found]
        report = {"similarity": self.config.similarity, **summary, "each": told}
        (out / "voices.json").write_text(json.dumps(report, indent=1))
        return summary


def described(
    groups: Sequence[tuple[str, NDArray[np.int64]]], vectors: Vectors, seconds: Sequence[float]
) -> list[dict[str, Any]]:
    """Rows of `VOICES`: how alike the recordings of a voice are, and which other one is likest."""
    centres = np.array([vectors[places].mean(axis=0) for _, places in groups], np.float32)
    cosines = centres @ centres.T if len(groups) else np.zeros((0, 0), np.float32)
    rows = []
    for place, (name, members) in enumerate(groups):
        count, squared = len(members), float(cosines[place, place])
        others = np.where(np.arange(len(groups)) == place, -np.inf, cosines[place])
        other = int(others.argmax()) if len(groups) > 1 else None
        rows.append(
            {
                "voice": name,
                "recordings": count,
                "seconds": round(float(sum(seconds[member] for member in members)), 2),
                # |mean|^2 holds the cosine of each recording with itself, too: count of count^2 pairs
                "similarity": (count * squared - 1) / (count - 1) if count > 1 else 1.0,
                "nearest": None if other is None else groups[other][0],
                "nearest_similarity": None if other is None else float(others[other]),
                "centre": centres[place].tolist(),
            }
        )
    return rows


def certainty(groups: Sequence[tuple[str, NDArray[np.int64]]], vectors: Vectors) -> dict[str, Any]:
    """How sure the groups are: the mean silhouette by cosine (-1 to 1; null for fewer than two), single recordings."""
    silhouette = None
    if 1 < len(groups) < len(vectors):
        from sklearn.metrics import silhouette_score

        labels = np.zeros(len(vectors), np.int64)
        for number, (_, places) in enumerate(groups):
            labels[places] = number
        silhouette = round(float(silhouette_score(vectors, labels, metric="cosine")), 3)
    return {"silhouette": silhouette, "alone": sum(len(places) == 1 for _, places in groups)}
