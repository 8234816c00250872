"""An exported corpus: a folder that is there whole or not at all, with figures (`corpus.json`) and a dataset card."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.export.formats import FORMATS, PER_FILE, Place, Write
from spiritlm_core.export.segments import Counts, Segments
from spiritlm_core.files import new_folder, write_json
from spiritlm_core.intake.rights import hours_by_licence
from spiritlm_core.tokens.export import META_FILE, check_target


def export_segments(
    segments: Segments,
    out: Path,
    kind: str,
    *,
    split: str | None = None,
    per_file: int = PER_FILE,
    force: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the segments of a corpus to `out` in the format `kind`; returns ``corpus.json``.

    Args:
        segments: What is written.
        out: A new or empty folder.
        kind: One of `FORMATS`.
        split: "train" or "held_out"; None: both.
        per_file: Segments of one Parquet file, Shar shard or tar.
        force: Replace what is in `out`.
        progress: Called with the number of segments that are written.

    Raises:
        SpiritLMError: `out` is not empty, or there is nothing to export.
    """
    check_target(out, force=force)
    counts: dict[str, Counts] = defaultdict(Counts)
    with new_folder(out) as fresh:
        fresh.mkdir()
        with ExitStack() as open_splits:
            writers: dict[str, Write] = {}
            for number, segment in enumerate(segments.rows(), 1):
                name = segment["split"]
                if split not in (None, name):
                    continue
                if name not in writers:
                    place = Place(fresh, name, segments.schema, per_file)
                    writers[name] = open_splits.enter_context(FORMATS[kind](place))
                writers[name](segment)
                counts[name].add(segment)
                progress(number)
        if not counts:
            raise SpiritLMError(f"recipe {segments.recipe!r} has no segment to export" + (f" in {split}" * bool(split)))
        meta = _meta(segments, kind, counts)
        write_json(fresh / META_FILE, meta)
        (fresh / "README.md").write_text(_card(meta, sorted(counts)), encoding="utf-8")
    return meta


def _meta(segments: Segments, kind: str, counts: dict[str, Counts]) -> dict[str, Any]:
    licences = sum((count.licences for count in counts.values()), Counter())
    return {
        "recipe": segments.recipe,
        "format": kind,
        "splits": {name: counts[name].figures() for name in sorted(counts)},
        "languages": sorted({name for count in counts.values() for name in count.languages}),
        "hours_by_licence": hours_by_licence(licences.items()),
        "left_out": dict(sorted(segments.rejected.items())),
        "columns": segments.schema.names,
        "lineage": {name: snapshot.fingerprint for name, snapshot in segments.tables.items()},
    }


def _card(meta: dict[str, Any], splits: list[str]) -> str:
    """README.md with the front matter of a dataset of the Hugging Face hub."""
    about: dict[str, Any] = {"language": meta["languages"]} if meta["languages"] else {}
    about |= {"task_categories": ["automatic-speech-recognition", "text-to-speech"]}
    if files := _FILES.get(meta["format"]):
        data = [{"split": name, "path": files.format(split=name)} for name in splits]
        about["configs"] = [{"config_name": "default", "data_files": data}]
    figures = [f"| {name} | " + " | ".join(f"{n:,}" for n in of.values()) + " |" for name, of in meta["splits"].items()]
    licences = [f"- {hours:,} hours {name}" for name, hours in meta["hours_by_licence"].items()]
    left_out = [f"- {count:,} times {reason}" for reason, count in meta["left_out"].items()] or ["- nothing"]
    return _README.format(
        header=yaml.safe_dump(about, sort_keys=False, allow_unicode=True).strip(),
        recipe=meta["recipe"],
        figures="\n".join(figures),
        licences="\n".join(licences or ["- nothing is known of them"]),
        left_out="\n".join(left_out),
        load=_LOADING[meta["format"]].format(split=splits[-1]),
        columns=", ".join(f"`{name}`" for name in meta["columns"]),
        lineage=json.dumps(meta["lineage"]),
    )


_FILES = {"hf": "data/{split}-*.parquet", "webdataset": "{split}-*.tar"}  # the files of a split that the hub loads
_CUTS = "Words are the alignment `word` of each supervision, units and other columns are custom fields of the cut."
_BESIDE = "Beside each recording `audio/{split}/SEGMENT.flac` lies a file of its words: "
_LOADING = {
    "hf": """\
    from datasets import Audio, load_dataset

    data = load_dataset(".", split="{split}")

`datasets` decodes with torchcodec, which needs FFmpeg; without it, `data.cast_column("audio", Audio(decode=False))`
gives FLAC that `soundfile` reads.""",
    "webdataset": """\
    from pathlib import Path

    from webdataset import WebDataset

    data = WebDataset(sorted(map(str, Path().glob("{split}-*.tar"))), shardshuffle=False).decode()

Each sample has `flac`, `txt` and, with all columns but the audio, `json`.""",
    "shar": f"""\
    from lhotse import CutSet

    cuts = CutSet.from_shar(in_dir="{{split}}")

{_CUTS}""",
    "lhotse": f"""\
    from lhotse import CutSet

    cuts = CutSet.from_file("cuts.{{split}}.jsonl.gz").with_recording_path_prefix(".")

{_CUTS}""",
    "textgrid": f"{_BESIDE}a TextGrid of Praat with the tier `words`.",
    "srt": f"{_BESIDE}SubRip, one cue per word.",
    "vtt": f"{_BESIDE}WebVTT, one cue per word.",
    "ctm": """\
`{split}.ctm` has a line per word: segment, channel, start and duration in seconds, word, confidence. The segments are
`audio/{split}/SEGMENT.flac`.""",
}
"""How each format is read."""

_README = """\
---
{header}
---
# Speech of the recipe {recipe}

Segments of recordings, 16 kHz mono FLAC, with their text, their words and when each was said, and speech units.

| split | segments | hours | words | speakers |
|---|---|---|---|---|
{figures}

{load}

Columns: {columns}. Times of words are seconds in the segment, `start` and `end` of the segment seconds in the recording
`recording_id`, which `source_sha256` identifies. Units come at a steady rate: `hubert` 25 or 12.5 a second,
as `units.rate` of the recipe says, `pitch` 12.5, `style` one.

Licences, which `licence` has of each segment if they are known:

{licences}

Left out, because a stage gave it up:

{left_out}

`corpus.json` has these figures. Made from the tables {lineage}.
"""
