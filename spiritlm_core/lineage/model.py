"""Where a model comes from: its recipe, tables and artifacts; from the lake the recordings, with their licences."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.files import read_json
from spiritlm_core.intake.rights import NOTHING, hours_by_licence, rights_in
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lineage.trace import AUDIO, recordings

LINEAGE_FILE = "lineage.json"


def lineage_of(model: str, lake: Lake, *, told: bool = True) -> dict[str, Any]:
    """What a published folder says of where it comes from, and what the lake adds to that.

    Args:
        model: a folder, or the name of a recipe whose model the lake has.
        lake: that it was made in; where it lacks the list of recordings, the folder alone is read.
        told: name every recording.

    Returns:
        recipe, tables, artifacts and given models; where the lake has the list: ``hours_by_licence``, the number of
        recordings, and ``recordings``.

    Raises:
        SpiritLMError: there is no such folder or recipe, or it has no lineage.
    """
    path = _folder(model, lake) / LINEAGE_FILE
    written = read_json(path)
    about = {name: written.get(name) for name in ("recipe", "variant", "task", "base", "given", "tables", "artifacts")}
    parts = [about[name] for name in ("given", "tables", "artifacts") if about[name]]
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise SpiritLMError(
            f"{path} is not of a published model: it has no `tables` and `artifacts` with their digests"
        )
    found = {"lake": lake.uri, **{name: value for name, value in about.items() if value}}
    fingerprint = (written.get("tables") or {}).get(AUDIO)
    snapshot = lake.find_snapshot(AUDIO, fingerprint) if fingerprint else None
    if snapshot is None or not all(lake.has_shard(AUDIO, key) for key in snapshot.keys):
        missing = f"{lake.uri} does not have this list of recordings, whose digest is in `tables`; --lake names another"
        return {**found, "missing": missing}
    rights = rights_in(snapshot.lineage)
    rows = [{**asdict(one), **asdict(rights.get(one.recording_id, NOTHING))} for one in recordings(lake, snapshot.keys)]
    rows.sort(key=lambda row: row["source_uri"])
    hours = hours_by_licence((row["licence"], row["seconds"]) for row in rows)
    return {**found, "hours_by_licence": hours, "count": len(rows), **({"recordings": rows} if told else {})}


def _folder(model: str, lake: Lake) -> Path:
    folder = Path(model)
    if (folder / LINEAGE_FILE).is_file():
        return folder
    if folder.is_dir():
        raise SpiritLMError(f"{model} has no {LINEAGE_FILE}: it was not published by this project")
    artifact = lake.used_artifact(model, "published") if "/" not in model else None
    if artifact is None:
        raise LakeError(f"there is no folder {model}, and {lake.uri} has no published model of a recipe of this name")
    return lake.artifact_folder(artifact)
