from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.lake.view import TableView

IDS = st.none() | st.lists(st.integers(0, 9), max_size=3)
COPIES = st.none() | st.lists(st.fixed_dictionaries({"ids": IDS, "rate": st.none() | st.just(0.5)}), max_size=2)
ROWS = st.lists(st.fixed_dictionaries({"name": st.just("a"), "ids": IDS, "copies": COPIES}), max_size=8)
IDS_TYPE = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "ids": IDS_TYPE,
        "copies": pa.list_(pa.struct({"ids": IDS_TYPE, "rate": pa.float64()})),
    }
)


def values(rows: list[dict], tmp: Path) -> list[dict[str, int]]:
    """By the rows in memory, and by the footer of a file of them."""
    table = pa.Table.from_pylist(rows, SCHEMA)
    pq.write_table(table, tmp / "rows.parquet", row_group_size=3)
    views = TableView.of(table), TableView.of_files([tmp / "rows.parquet"])
    assert all(view.columns() == SCHEMA.names for view in views)
    return [dict(view.loaders[0].values()) for view in views]


@given(ROWS)
def test_a_footer_counts_the_values_that_the_rows_hold(tmp_path_factory, rows):
    in_memory, in_file = values(rows, tmp_path_factory.mktemp("rows"))
    assert in_memory == in_file
    assert in_memory["ids"] == sum(len(row["ids"] or []) for row in rows)
    assert in_memory["copies.ids"] == sum(len(one["ids"] or []) for row in rows for one in row["copies"] or [])


def test_a_view_without_shards_has_no_columns():
    assert TableView.of().columns() == []
