"""CSV, Parquet and JSON lines, by the columns' names, through duckdb."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError, InstallError
from tinyfl.errors.words import plain
from tinyfl.system.files import private_folder

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

CSV, PARQUET, JSON = (".csv", ".tsv"), (".parquet", ".pq"), (".json", ".jsonl", ".ndjson")
MISSING = ["", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"]
"""What a CSV file has for a missing value."""

GLOB = "*?[]"
"""Characters of which duckdb makes a pattern."""


def is_tabular(path: Path) -> bool:
    """Whether the name of ``path`` is that of a file that ``read_columns`` reads, perhaps compressed."""
    return _kind(path) in (*CSV, *PARQUET, *JSON)


def _kind(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() in (".gz", ".zst") else path
    return name.suffix.lower()


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of the file at ``path``, each (rows,): text as str, dates as datetime64, and numbers; a missing value is "",
    NaT or NaN.

    Raises DataError if the file is missing or malformed, InstallError without duckdb.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give --data the path of a file.")
    try:
        import duckdb
    except ImportError as error:
        raise InstallError(f"{path.name} needs duckdb: pip install 'tinyfl[data]'. An .npz file needs nothing more.") from error
    # Extensions are neither loaded nor fetched: what a file holds reaches out to nothing.
    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
    }
    try:
        with ExitStack() as stack, duckdb.connect(config=settings) as connection:
            name = path.resolve()
            if set(GLOB) & set(str(name)):
                link = Path(stack.enter_context(private_folder("tinyfl-data-"))) / f"data{''.join(path.suffixes[-2:])}"
                link.symlink_to(name)
                name = link
            found = _relation(connection, name, _kind(path)).fetchnumpy()
            columns = {column.strip(): _plain_array(values) for column, values in found.items()}
    except (duckdb.Error, MemoryError, UnicodeError) as error:
        raise DataError(
            f"{path} cannot be read ({plain(str(error).splitlines()[0] if str(error) else error)}). "
            "Give a CSV, Parquet or JSON lines file with a line of columns' names, in UTF-8."
        ) from error
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"{path} has no rows. Give a file with a line of columns' names, and a row for each sample.")
    if len(columns) == 1 and set(",;\t|") & set(name_of := next(iter(columns))):
        raise DataError(
            f"{path}: its rows have other numbers of values than its columns, {plain(name_of, 80)}. Give each row one value "
            "for each column, empty where it is missing."
        )
    return columns


def _relation(connection: "DuckDBPyConnection", path: Path, kind: str) -> "DuckDBPyRelation":
    if kind in PARQUET:
        return connection.read_parquet(str(path))
    if kind in JSON:
        return connection.read_json(str(path), sample_size=-1)
    return connection.read_csv(str(path), header=True, sample_size=-1, na_values=MISSING)


def _plain_array(values: Any) -> NDArray[Any]:
    """A column as duckdb gives it, masked where values are missing, as a plain array."""
    missing = np.ma.getmaskarray(values)
    array = np.ma.getdata(values)
    if array.dtype.kind in "OSU":
        texts = ["" if each is None else str(each) for each in array.tolist()]
        return np.array(["" if gone else each for each, gone in zip(texts, missing.tolist(), strict=True)])
    if array.dtype.kind == "M":
        return np.where(missing, np.datetime64("NaT"), array)
    if not missing.any():
        return np.ascontiguousarray(array)
    return np.where(missing, np.nan, array.astype(np.float64))
