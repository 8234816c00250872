"""Lhotse manifests, read with lhotse: cuts, or recordings with their supervisions.

``lhotse prepare CORPUS`` writes pairs ``*recordings*.jsonl.gz`` and ``*supervisions*.jsonl.gz``, so this reads
any corpus that lhotse has a recipe for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spiritlm_core.audio.config import LhotseSource
from spiritlm_core.audio.files import local_path, local_uri, printable, stat_file
from spiritlm_core.audio.sources.draft import Draft, clean, missing
from spiritlm_core.audio.sources.manifest import resolve
from spiritlm_core.errors import SourceError

_MANIFEST = re.compile(r"\.(jsonl|json|yaml|yml)(\.gz)?$")


def drafts(source: LhotseSource) -> Iterator[Draft]:
    """One draft per supervision, per cut, or per recording that has no supervision."""
    for path, supervisions in _manifests(source):
        root = str(path.parent)
        entries = list(_load(path))
        kinds = {type(entry).__name__ for entry in entries}
        if kinds == {"Recording"}:
            spoken = list(_load(supervisions)) if supervisions else []
            yield from _recordings(entries, spoken, root)
        elif kinds and not kinds & {"Recording", "SupervisionSegment"}:
            yield from (_cut(cut, root) for cut in entries)
        elif kinds:
            raise SourceError(f"source lhotse:{path}: holds {', '.join(sorted(kinds))}, not recordings or cuts")


def _manifests(source: LhotseSource) -> Iterator[tuple[Path, Path | None]]:
    """(recordings or cuts, supervisions of the former) below or at the path of a source."""
    path = Path(local_path(source.path))
    if path.is_file():
        yield path, Path(source.supervisions) if source.supervisions else _partner(path)
        return
    names = sorted(p for p in path.glob("*") if _MANIFEST.search(p.name)) if path.is_dir() else []
    found = [p for p in names if "recordings" in p.name] or [p for p in names if "cuts" in p.name]
    if not found:
        raise SourceError(f"source lhotse:{source.path}: no *recordings* or *cuts* manifest (.jsonl.gz …) there")
    yield from ((p, _partner(p)) for p in found)


def _partner(recordings: Path) -> Path | None:
    name = recordings.name.replace("recordings", "supervisions")
    return recordings.with_name(name) if name != recordings.name and recordings.with_name(name).is_file() else None


def _load(path: Path) -> Iterable[Any]:
    from lhotse.serialization import load_manifest_lazy_or_eager

    try:
        return load_manifest_lazy_or_eager(path) or ()
    except (OSError, ValueError, AssertionError, KeyError, TypeError) as error:
        raise SourceError(f"source lhotse:{path}: cannot be read: {error}") from error


def _recordings(recordings: list[Any], spoken: list[Any], root: str) -> Iterator[Draft]:
    known = {recording.id: recording for recording in recordings}
    for one in spoken:
        if one.recording_id in known:
            yield _stretch(known[one.recording_id], one.id, one.start, one.end, one.channel, [one], root)
        else:
            yield missing(one.id, f"lhotse:{one.id}", f"recording {one.recording_id} is not in the manifest", one.text)
    for unspoken in known.keys() - {one.recording_id for one in spoken}:
        recording = known[unspoken]
        yield _stretch(recording, recording.id, 0.0, recording.duration, None, [], root)


def _cut(cut: Any, root: str) -> Draft:
    if type(cut).__name__ not in ("MonoCut", "MultiCut") or cut.recording is None:
        return missing(cut.id, f"lhotse:{cut.id}", f"{type(cut).__name__} cuts are not supported: save the audio first")
    return _stretch(cut.recording, cut.id, cut.start, cut.end, cut.channel, cut.supervisions, root)


def _stretch(rec: Any, name: str, start: float, end: float, channels: Any, spoken: list[Any], root: str) -> Draft:
    """A stretch of a recording in seconds; null borders where it is all of it."""
    source, channel, error = _audio_source(rec, channels)
    if error:
        return missing(name, f"lhotse:{name}", error)
    # lhotse paths start at the working folder of whoever wrote them; next to the manifest is the other usual place
    uri = local_uri(source) if "://" not in source and Path(source).exists() else resolve(source, root)
    whole = start <= 0.0 and end >= rec.duration - 1e-3
    return Draft(
        name=printable(name),
        uri=uri,
        file=stat_file(uri),
        text=clean(" ".join(one.text for one in spoken if one.text)),
        speaker=next((one.speaker for one in spoken if one.speaker), None),
        language=next((one.language for one in spoken if one.language), None),
        start=None if whole else float(start),
        end=None if whole else float(end),
        channel=channel,
    )


def _audio_source(recording: Any, channels: Any) -> tuple[str, int | None, str | None]:
    """(path or URI, channel in that file or null for all, why not)."""
    if recording.transforms:
        return "", None, "the recording has transforms (speed, volume …): save the audio first"
    wanted = [channels] if isinstance(channels, int) else list(channels or [])
    fits = [source for source in recording.sources if not wanted or set(wanted) <= set(source.channels)]
    if not fits or (len(recording.sources) > 1 and not wanted):
        return "", None, f"channels {wanted or recording.channel_ids} are spread over several files"
    if fits[0].type not in ("file", "url") or (fits[0].type == "url" and not str(fits[0].source).startswith("s3://")):
        return "", None, f"audio of type {fits[0].type!r} cannot be read: only files and s3:// can"
    single = len(wanted) == 1 and len(fits[0].channels) > 1
    return str(fits[0].source), list(fits[0].channels).index(wanted[0]) if single else None, None
