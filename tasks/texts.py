"""Planning the table `documents`: which texts there are, and which shards hold them already."""

from __future__ import annotations

from spiritlm_core.errors import SourceError
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import StageCall, TablePlan
from spiritlm_core.recipe import Recipe
from tasks.recordings import inline_jobs, stat_cache


def plan_documents(lake: Lake, recipe: Recipe, call: StageCall) -> TablePlan:
    """One job per group of pieces of text files; groups that a shard holds already keep its key.

    Raises:
        SourceError: a source cannot be read, or none of them holds anything.
    """
    from spiritlm_core.intake.pieces import SHARDING, Piece, collect, list_pieces, pieces_table

    pieces: list[Piece] = []
    for source in recipe.texts:
        with stat_cache(lake, f"cache/texts/{digest(source.model_dump(mode='json'))[:32]}.json") as cache:
            pieces += list_pieces(source, cache)
    pieces = collect(pieces)
    if not pieces:
        shown = ", ".join(source.path for source in recipe.texts)
        raise SourceError(f"no text documents found in {shown}: name .txt, .jsonl or .parquet files under `texts`")
    jobs = inline_jobs(pieces, lake, recipe.name, call, SHARDING, pieces_table)
    lineage = {"models": call.digests, "sources": [source.model_dump(mode="json") for source in recipe.texts]}
    return TablePlan(call, jobs, lineage)
