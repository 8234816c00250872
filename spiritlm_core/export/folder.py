"""An exported corpus: a folder that is there whole or not at all, with figures (`corpus.json`) and a dataset card."""

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
from spiritlm_core.files import markdown, new_folder, write_json
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
            why = "".join(f"; left out, {count} times: {reason}" for reason, count in segments.rejected.most_common(3))
            of = f" in {split}" if split else ""
            raise SpiritLMError(f"recipe {segments.recipe!r} has no segment to export{of}{why}")
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
    header = yaml.safe_dump(about, sort_keys=False, allow_unicode=True).strip()
    values = {**meta, "header": header, "split": splits[-1], "lineage": json.dumps(meta["lineage"])}
    return markdown(Path(__file__).parent / "templates" / "card.md.j2", **values)


_FILES = {"hf": "data/{split}-*.parquet", "webdataset": "{split}-*.tar"}  # the files of a split that the hub loads
