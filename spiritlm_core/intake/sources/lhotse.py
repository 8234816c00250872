"""Lhotse manifests, read with lhotse: cuts, or recordings with their supervisions.

``lhotse prepare CORPUS`` writes pairs ``*recordings*.jsonl.gz`` and ``*supervisions*.jsonl.gz``, so this reads
any corpus that lhotse has a recipe for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from spiritlm_core.errors import Rejection, SourceError, is_machine_error, reason_of
from spiritlm_core.intake.draft import Draft, clean, located, missing
from spiritlm_core.intake.files import local_path, local_uri, printable
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.sources.columns import check_path, number_of, resolve, text_of

_MANIFEST = re.compile(r"\.(jsonl|json|yaml|yml)(\.gz)?$")


class LhotseSource(Source):
    """Lhotse manifests: cuts, or recordings with supervisions; what any of its corpus recipes writes."""

    kind: Literal["lhotse"] = "lhotse"
    path: str = Field(min_length=1, description="Folder of manifests, or one cuts or recordings manifest.")
    supervisions: str | None = Field(None, description="Manifest of supervisions, where `path` does not lead to it.")

    def drafts(self) -> Iterator[Draft]:
        """One draft per supervision, per cut, or per recording that has no supervision."""
        yield from located(self._drafts())

    def _drafts(self) -> Iterator[Draft]:
        for path, supervisions in _manifests(self):
            root = str(path.parent)
            entries = _load(path)
            kinds = {type(entry).__name__ for entry in entries}
            if kinds == {"Recording"}:
                spoken = _load(supervisions) if supervisions else []
                yield from _recordings(entries, spoken, root)
            elif kinds and not kinds & {"Recording", "SupervisionSegment"}:
                yield from (_checked(lambda cut=cut, root=root: _cut(cut, root), cut) for cut in entries)  # type: ignore[misc]
            elif kinds:
                raise SourceError(f"source lhotse:{path}: holds {', '.join(sorted(kinds))}, not recordings or cuts")


def _manifests(source: LhotseSource) -> Iterator[tuple[Path, Path | None]]:
    """(recordings or cuts, supervisions of the former) below or at the path of a source."""
    path = Path(local_path(source.path))
    if path.is_file():
        yield path, Path(source.supervisions) if source.supervisions else _partner(path)
        return
    names = sorted(p for p in path.glob("*") if _MANIFEST.search(p.name)) if path.is_dir() else []
    manifests = [p for p in names if "recordings" in p.name] or [p for p in names if "cuts" in p.name]
    if not manifests:
        raise SourceError(f"source lhotse:{source.path}: no *recordings* or *cuts* manifest (.jsonl.gz …) there")
    yield from ((p, _partner(p)) for p in manifests)


def _partner(recordings: Path) -> Path | None:
    name = recordings.name.replace("recordings", "supervisions")
    return recordings.with_name(name) if name != recordings.name and recordings.with_name(name).is_file() else None


def _load(path: Path) -> list[Any]:
    """All entries. Raises SourceError naming the line where it can be told."""
    from lhotse.serialization import load_manifest_lazy_or_eager

    entries: list[Any] = []
    try:
        for entry in load_manifest_lazy_or_eager(path) or ():
            entries.append(entry)  # noqa: PERF402 - how many were read tells the line of an error
    except Exception as error:  # whatever lhotse makes of damaged lines
        if is_machine_error(error):
            raise
        told = ".jsonl" in path.name and not isinstance(error, UnicodeDecodeError)  # which is found a block ahead
        where = f", line {len(entries) + 1}," if told else ""
        raise SourceError(f"source lhotse:{path}{where} cannot be read: {reason_of(error)}") from error
    return entries


def _recordings(recordings: list[Any], spoken: list[Any], root: str) -> Iterator[Draft]:
    known = {str(recording.id): recording for recording in recordings}
    for one in spoken:
        yield _checked(lambda one=one: _supervision(one, known.get(str(one.recording_id)), root), one)  # type: ignore[misc]
    for unspoken in known.keys() - {str(one.recording_id) for one in spoken}:
        whole = known[unspoken]
        yield _checked(lambda it=whole: _stretch(it, it.id, 0.0, it.duration, None, [], root), whole)  # type: ignore[misc]


def _supervision(one: Any, recording: Any, root: str) -> Draft:
    if recording is None:
        raise Rejection(f"recording {one.recording_id} is not in the manifest")
    return _stretch(recording, one.id, one.start, one.end, one.channel, [one], root)


def _checked(read: Callable[[], Draft], entry: Any) -> Draft:
    """What `read` makes of an entry, or the reason why it makes nothing of it: lhotse checks no types."""
    try:
        return read()
    except Rejection as problem:
        reason = str(problem)
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
        reason = f"a value of the wrong type: {error}"
    return missing(str(entry.id), f"lhotse:{printable(str(entry.id))}", reason)


def _cut(cut: Any, root: str) -> Draft:
    if type(cut).__name__ not in ("MonoCut", "MultiCut") or cut.recording is None:
        raise Rejection(f"{type(cut).__name__} cuts are not supported: save the audio first")
    return _stretch(cut.recording, cut.id, cut.start, cut.end, cut.channel, cut.supervisions, root)


def _stretch(rec: Any, name: str, start: float, end: float, channels: Any, spoken: list[Any], root: str) -> Draft:
    """A stretch of a recording in seconds; null borders where it is all of it."""
    source, channel = _audio_source(rec, channels)
    # lhotse paths start at the working folder of whoever wrote them; next to the manifest is the other usual place
    uri = local_uri(check_path(source)) if "://" not in source and Path(source).exists() else resolve(source, root)
    first, last = number_of(start, "start") or 0.0, number_of(end, "end")
    whole = first == 0.0 and (last is None or last >= rec.duration - 1e-3)
    return Draft(
        name=printable(name),
        uri=uri,
        text=clean(" ".join(filter(None, (text_of(one.text, "text") for one in spoken)))),
        speaker=next(filter(None, (text_of(one.speaker, "speaker") for one in spoken)), None),
        language=next(filter(None, (text_of(one.language, "language") for one in spoken)), None),
        start=None if whole else first,
        end=None if whole else last,
        channel=channel,
    )


def _audio_source(recording: Any, channels: Any) -> tuple[str, int | None]:
    """Path or URI, and the channel in that file or null for all. Raises Rejection if there is none such."""
    if recording.transforms:
        raise Rejection("the recording has transforms (speed, volume …): save the audio first")
    wanted = [channels] if isinstance(channels, int) else list(channels or [])
    fits = [source for source in recording.sources if not wanted or set(wanted) <= set(source.channels)]
    if not fits or (len(recording.sources) > 1 and not wanted):
        raise Rejection(f"channels {wanted or recording.channel_ids} are spread over several files")
    kind, source = fits[0].type, str(fits[0].source)
    if kind not in ("file", "url") or (kind == "url" and not source.startswith(("s3://", "http://", "https://"))):
        raise Rejection(f"audio of type {kind!r} cannot be read: only files, s3:// and https:// can")
    single = len(wanted) == 1 and len(fits[0].channels) > 1
    return check_path(source), list(fits[0].channels).index(wanted[0]) if single else None
