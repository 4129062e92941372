"""Tables in files: CSV, TSV, JSON Lines and parquet behind one small interface of columns and rows.

Must not know: which columns hold images or labels, or what is done with the rows.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tl_core.errors import DataError
from tl_core.images.wording import name_some, one_line

TEXT_TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
PARQUET_TABLES = frozenset({".parquet"})
TABLE_EXTENSIONS = TEXT_TABLES | PARQUET_TABLES

# Rows of images read at a time: 64 photographs of 10 MB are still bearable, 64 thumbnails no burden.
IMAGE_ROWS_AT_ONCE = 64
_ROWS_AT_ONCE = 16_384
_DELIMITERS = ",;\t|"
# Kinds of column: `image` is the Hugging Face structure {bytes, path}.
Kind = Literal["text", "number", "bytes", "image", "other"]


@dataclass
class Table:
    """An opened table. `rows(columns)` yields tuples in the order of `columns`; absent values are None.

    `label_names` holds the names that a column's whole numbers stand for, where the file says so. Of an `image` column
    rows carry the path only; `images(column)` yields the bytes (or None).
    """

    path: Path
    kinds: dict[str, Kind]
    rows: Callable[[Sequence[str]], Iterator[tuple[Any, ...]]]
    row_count: int
    images: Callable[[str], Iterator[bytes | None]] | None = None
    label_names: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_table(path: Path, within: Path | None = None) -> Table:
    """Open a table by its file name's ending. Raises DataError for one that cannot be read, saying where and why.

    `within` is that of `file_at`: a first row that names a file is data, not a header.
    """
    try:
        if path.suffix.lower() in PARQUET_TABLES:
            return _open_parquet(path)
        text, notes = _read_text(path)
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror or error}") from error
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        return _table_of_records(path, _json_records(path, text), notes)
    return _table_of_records(path, _separated_records(path, text, within), notes)


def file_at(folder: Path, name: str, within: Path | None) -> Path | None:
    """The file that a text in a table names, relative to `folder`; with `within`, only one below that folder."""
    for text in (name, name.replace("\\", "/")):  # the second for tables written on Windows
        try:
            path = folder / text
            if text and path.is_file():
                return path if is_within(path, within) else None
        except (OSError, ValueError):  # longer than the system allows, or with a zero byte
            return None
    return None


def is_within(path: Path, within: Path | None) -> bool:
    return within is None or path.resolve().is_relative_to(within.resolve())


def _read_text(path: Path) -> tuple[str, list[str]]:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # what spreadsheet programs call Unicode text
        encodings = ["utf-16"]
    elif b"\0" in content:
        encodings = []
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if re.search(r"[\x00-\x08\x0e-\x1f]", text):
            break
        if encoding == "cp1252":
            return text, [f"{path.name} is not UTF-8; it was read as Western European (cp1252): check accented names."]
        return text, []
    raise DataError(
        f"{path} cannot be read as text: neither UTF-8 nor Western European; save the table as CSV in UTF-8"
    )


def _json_records(path: Path, text: str) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a name may hold U+2028
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}, is not JSON: {error}; each line must hold one object") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}, holds {one_line(line)}; each line must hold one JSON object")
        records.append(record)
    return records


def _separated_records(path: Path, text: str, within: Path | None) -> list[dict[str, Any]]:
    first_line = text.lstrip().split("\n", 1)[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    line = 1
    try:
        for row in reader:
            line = reader.line_num + 1
            if row:
                rows.append(row)
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read as a table from line {line} on: {error}; look for a quotation mark too many"
        ) from error
    if not rows:
        return []
    if any(file_at(path.parent, cell, within) for cell in rows[0]):
        names = [f"column {number}" for number in range(1, len(rows[0]) + 1)]  # no header: the first row is data
    else:
        names = [cell.strip() for cell in rows.pop(0)]
        _require_different(path, names)
    return [dict(zip(names, (cell or None for cell in row), strict=False)) for row in rows]


def _require_different(path: Path, names: Iterable[str]) -> None:
    twice = [name for name, number in Counter(names).items() if name and number > 1]
    if twice:
        raise DataError(f"{path} has several columns called {name_some(twice)}; give each a name of its own")


def _table_of_records(path: Path, records: list[dict[str, Any]], notes: list[str]) -> Table:
    kinds: dict[str, Kind] = {}
    for record in records:
        for name, value in record.items():
            if name not in kinds or (value is not None and kinds[name] == "other"):
                kinds[name] = _kind_of_value(value)

    def rows(columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for record in records:
            yield tuple(record.get(name) for name in columns)

    return Table(path, kinds, rows, len(records), notes=notes)


def _kind_of_value(value: object) -> Kind:
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) else "other"


def _open_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, row_count = file.schema_arrow, file.metadata.num_rows
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a parquet file that can be read: {one_line(error)}") from error
    _require_different(path, schema.names)
    kinds = {field.name: _kind_of_type(field.type) for field in schema}

    def batches(columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=size, columns=list(columns), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged: {one_line(error)}") from error

    def rows(columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        # "image.path" reads that part of the structure and leaves the bytes in the file.
        wanted = [f"{name}.path" if kinds[name] == "image" else name for name in columns]
        for batch in batches(wanted, _ROWS_AT_ONCE):
            try:
                values = [
                    _paths_of(batch.column(name)) if kinds[name] == "image" else batch.column(name).to_pylist()
                    for name in columns
                ]
            except UnicodeDecodeError as error:
                raise DataError(f"{path} holds text that is not UTF-8 ({error}); write the table anew") from error
            yield from zip(*values, strict=True)

    def images(column: str) -> Iterator[bytes | None]:
        wanted = f"{column}.bytes" if kinds[column] == "image" else column
        for batch in batches([wanted], IMAGE_ROWS_AT_ONCE):
            array = batch.column(column)
            if kinds[column] == "image":
                array = array.field("bytes")
            for value in array:
                yield value.as_py()

    return Table(path, kinds, rows, row_count, images, _class_labels(schema.metadata or {}))


def _paths_of(column: Any) -> list[str | None]:
    return [value and value["path"] for value in column.to_pylist()]


def _kind_of_type(kind: Any) -> Kind:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return "number"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return "bytes"
    if pa.types.is_struct(kind) and {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}:
        return "image"
    return "other"


def _class_labels(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names in the schema that `datasets` writes: info.features.COLUMN with _type ClassLabel and names."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # written by something else: the columns speak for themselves
