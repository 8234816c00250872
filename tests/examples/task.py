"""Pairs of plurals, the right one first."""

import csv
from pathlib import Path

from spiritlm_core.evaluate.suite.pairs import Pair, Side
from spiritlm_core.evaluate.suite.zeroshot import PairTask


def read_plurals(name: str, folder: Path) -> list[PairTask]:
    """The task of ``plurals.tsv``, whose lines are ``RIGHT<tab>WRONG``; nothing if there is none."""
    table = folder / "plurals.tsv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if len(row) == 2]
    pairs = [Pair(right, Side(right), Side(wrong), item=right) for right, wrong in rows]
    return [PairTask(name, "plurals.tsv", folder, tuple(pairs))]
