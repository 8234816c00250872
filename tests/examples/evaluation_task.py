"""An evaluation task of one's own, as CONTRIBUTING.md adds it: this file, and one line in `READERS` of
`spiritlm_core/evaluate/suite/layouts.py`."""

from pathlib import Path

from spiritlm_core.evaluate.suite.labels import LabelTask
from spiritlm_core.evaluate.suite.official import read_table
from spiritlm_core.evaluate.suite.pairs import Labelled, Side

TABLE = "parity.csv"


def read_parity(name: str, folder: Path) -> list[LabelTask]:
    """Whether a number is odd or even: a table with the columns split, number and parity."""
    if not (folder / TABLE).is_file():
        return []
    rows = read_table(folder / TABLE, ("split", "number", "parity"))
    rows_of = {split: [row for row in rows if row["split"] == split] for split in ("test", "train")}
    test, train = (
        tuple(Labelled(row["number"], row["parity"], Side(text=row["number"])) for row in rows_of[split])
        for split in ("test", "train")
    )
    return [LabelTask(name, TABLE, folder, test, train)]
