"""DuckDB over the shards of a lake, of which it reads the columns that a question needs, or over a copy of them."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from spiritlm_core.errors import LakeError
from spiritlm_core.store.objects import Store
from spiritlm_core.store.uri import open_store

_SETTINGS = "SET threads = 2; SET memory_limit = '400MB'; SET parquet_metadata_cache = true; SET temp_directory = ''"
_OF_A_COPY = "SET threads = 2; SET memory_limit = '300MB'; ATTACH ':memory:' AS copy (COMPRESS)"
_AT_ONCE = 64  # shards that are copied while a question waits
_GROUP = 122_880  # rows that DuckDB compresses together; fewer would be compressed again with those that follow
_NO_ROWS = (
    "(SELECT '' AS utterance_id, '' AS reject_stage, '' AS reject_reason, '' AS filename, 0 AS file_row_number LIMIT 0)"
)
"""A table without shards: what nearly all tables have, and none of it."""


def ask(store: Store, question: str, files: dict[str, list[str]], values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The answer of DuckDB to SQL in which ``{name}`` stands for the shards `files[name]`, and ``?`` for `values`.

    Raises LakeError: a shard is missing or damaged, or the answer takes too much memory.
    """
    import duckdb

    for name, paths in files.items():
        question = question.replace(f"{{{name}}}", _shards(paths))
    try:
        return _answer(_connection(store.uri), question, values)
    except duckdb.Error as error:
        raise LakeError(f"the shards of {store.uri} cannot be asked: {str(error).splitlines()[0]}") from error


class Copy:
    """Columns of a table in memory, compressed, so that a question need not open thousands of shards.

    It takes about a tenth of a kilobyte a row, and never more than 300 MB: a larger table is asked in its shards.
    """

    def __init__(self, store: Store, select: str, files: Sequence[str]) -> None:
        """`select` is SQL in which ``{shards}`` stands for some of the `files`."""
        self._store, self._select, self._files = store, select, files
        self._made: Any = None
        self._thread: threading.Thread | None = None
        self._wanted = True
        self.turn = threading.Lock()  # of who reads the shards: a question does not compete with the copying

    def start(self) -> None:
        """Make it in the background, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._make)
            self._thread.start()

    def wait(self) -> bool:
        """Whether there is one, as soon as that is known."""
        if self._thread is not None:
            self._thread.join()
        return self._made is not None

    def drop(self) -> None:
        """Let it go."""
        self._wanted, self._made = False, None

    def ask(self, question: str, values: Sequence[Any]) -> list[tuple[Any, ...]] | None:
        """The answer to SQL in which ``{rows}`` stands for the table; None if the shards must be asked."""
        import duckdb

        if (made := self._made) is not None:
            with suppress(duckdb.Error):  # such as too little memory
                return _answer(made, question.replace("{rows}", "copy.rows"), values)
        return None

    def _make(self) -> None:
        import duckdb

        with suppress(duckdb.Error):  # too large, or a shard is damaged: who asks about it is told so
            made, rows = _connect(self._store.uri, _OF_A_COPY), 0
            for start in range(0, len(self._files), _AT_ONCE):
                select = self._select.replace("{shards}", _shards(self._files[start : start + _AT_ONCE]))
                with self.turn:
                    into = "INSERT INTO copy.rows" if start else "CREATE TABLE copy.rows AS"
                    rows += made.execute(f"{into} {select}").fetchall()[0][0]
                if rows >= _GROUP:
                    made.execute("CHECKPOINT copy")  # which compresses
                    rows = 0
                if not self._wanted or not threading.main_thread().is_alive():
                    return
                time.sleep(0.01)  # a question that waits comes first
            made.execute("CHECKPOINT copy")
            self._made = made


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def _shards(paths: Sequence[str]) -> str:
    if not paths:
        return _NO_ROWS
    return f"read_parquet([{', '.join(map(literal, paths))}], filename = true, file_row_number = true)"


def _answer(connection: Any, question: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        answer: list[tuple[Any, ...]] = cursor.execute(question, list(values)).fetchall()
    return answer


@cache
def _connection(uri: str) -> Any:
    """One data base in memory for a store, which keeps the footers of its shards."""
    return _connect(uri, _SETTINGS)


def _connect(uri: str, settings: str) -> Any:
    import duckdb

    connection = duckdb.connect()
    connection.execute(settings)
    if (files := open_store(uri).filesystem) is not None:
        connection.register_filesystem(files)
    return connection
