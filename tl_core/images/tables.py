"""Tables of labelled images: rows become listed files. Images kept inside a table are unpacked to files first, once.

Must not know: how a table is written in its file, or whether an image can be decoded.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tl_core.errors import DataError
from tl_core.images.collection import SPLITS, Listed, Skipped
from tl_core.images.columns import Columns, choose_columns
from tl_core.images.listing import Folder, Listing, readable_name, split_named, walk
from tl_core.images.table_choice import Part, files_by_name
from tl_core.images.table_files import Table, file_at, is_within, open_table
from tl_core.images.unpacked import Unpacking, fingerprint, make_once, require_room
from tl_core.images.wording import DETAILS_SHOWN, one_line
from tl_core.settings import Settings

# To be raised when the layout of unpacked tables changes.
_LAYOUT = "table 1"
# A compressed table tells only while it is written how large its images are: the disk is looked at this often.
_ROOM_CHECKED_EVERY = 64 * 1024**2
_DECIMALS = re.compile(r"-?\d*\.\d*[1-9]\d*(e-?\d+)?", re.IGNORECASE)
_ENDINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


@dataclass(frozen=True)
class _Row:
    """What one row says, and where it stands, for people."""

    number: int  # from 0, in its part
    given: str | None  # the path or name in the image column
    label: str | None
    split: str | None
    shown: str

    @property
    def place(self) -> str:
        return f"row {self.number + 1} of {self.shown}"


def list_table(
    parts: Sequence[Part],
    root: Path,
    settings: Settings,
    image_column: str | None = None,
    label_column: str | None = None,
    tree: Folder | None = None,
    within: Path | None = None,
    unpacking: Unpacking | None = None,
) -> Listing:
    """The rows of one table as labelled files. Names of files inside a table are relative to `root`.

    Paths in a table are relative to its folder; if none leads anywhere, files of that name (with or without ending) are
    looked for below `root`; `tree` is that folder, walked. With `within`, only files below that folder are taken.
    Raises DataError when a part cannot be read, parts differ, columns are not found, or no row names a file; nothing
    is unpacked then.
    """
    parts = sorted(parts, key=lambda part: SPLITS.index(part.split) if part.split else len(SPLITS))
    listing = Listing()
    parts, tables = _belonging_together(parts, within, listing)
    first = tables[0]
    row_count = sum(table.row_count for table in tables)
    if not row_count:
        raise DataError(f"{first.path} has no rows")
    if row_count > settings.max_files:
        raise DataError(
            f"{first.path} has {row_count:,} rows; at most {settings.max_files:,} are taken "
            "(set TL_MAX_FILES to allow more)"
        )

    columns = choose_columns(
        tables, image_column, label_column, lambda name: file_at(first.path.parent, name, within) is not None
    )
    rows = [
        _read_rows(table, columns, part.split, _shown_name(part.path, root))
        for part, table in zip(parts, tables, strict=True)
    ]
    if first.kinds[columns.image] in {"image", "bytes"}:
        unpacked = _unpack(tables, columns.image, settings, unpacking)
        inside = [_unpacked_rows(unpacked / str(number)) for number in range(len(tables))]
    else:
        inside = [{} for _ in tables]
    for part, read, files in zip(parts, rows, inside, strict=True):
        _add_rows(listing, read, files, lambda name, folder=part.path.parent: file_at(folder, name, within))  # type: ignore[misc]
    if not listing.files and any(row.given for read in rows for row in read):
        by_name = _files_below(tree, root, settings)
        listing.skipped.clear()
        for read in rows:
            _add_rows(listing, read, {}, lambda name: _named(by_name, name, within))
        listing.notes.append(
            f"The files of column {columns.image!r} were found by their names in the folders beside the table."
        )
    if not listing.files:
        raise DataError(
            f"no row of {first.path} gives an image (column {columns.image!r}) and a label (column {columns.label!r}); "
            "paths in a table are relative to its folder",
            [f"{skipped.name}: {skipped.reason}" for skipped in listing.skipped[:DETAILS_SHOWN]],
        )
    listing.notes += columns.notes
    listing.notes.append(
        f"Images are taken from the column {columns.image!r}, labels from {columns.label!r}"
        + (f", splits from {columns.split!r}." if columns.split else ".")
    )
    measured = {file.label for file in listing.files if _DECIMALS.fullmatch(file.label)}
    if measured:
        listing.notes.append(
            f"The column {columns.label!r} holds numbers with decimals, such as {min(measured)}: each different value "
            "is a class of its own here. If they are measurements, put them into ranges first."
        )
    return listing


def _belonging_together(parts: Sequence[Part], within: Path | None, listing: Listing) -> tuple[list[Part], list[Table]]:
    """Parts with the columns and classes of the first; others are an error in its split, else left out and noted.

    So are parts that belong to no split beside others that do; `parts` has those last.
    """
    kept: list[Part] = []
    tables: list[Table] = []
    for part in parts:
        if kept and kept[0].split and part.split is None:
            listing.notes.append(
                f"{part.path.name} was left out: its name says no split, as that of {kept[0].path.name} does."
            )
            continue
        table = open_table(part.path, within)
        if not tables or (set(table.kinds) == set(tables[0].kinds) and table.label_names == tables[0].label_names):
            kept.append(part)
            tables.append(table)
            listing.notes += table.notes
        elif part.split == kept[0].split:
            raise DataError(
                f"{kept[0].path} and {part.path} do not belong to one table: their columns or their classes differ; "
                "name one of the files, or put each table in a folder of its own"
            )
        else:
            listing.notes.append(
                f"{part.path.name} was left out: its columns or classes are not those of {kept[0].path.name}."
            )
    return kept, tables


def _read_rows(table: Table, columns: Columns, split: str | None, shown: str) -> list[_Row]:
    has_paths = table.kinds[columns.image] != "bytes"
    wanted = [columns.label, *([columns.image] if has_paths else []), *([columns.split] if columns.split else [])]
    read_label = _label_reader(table, columns.label)
    rows = []
    for number, values in enumerate(table.rows(wanted)):
        given = str(values[1]) if has_paths and values[1] is not None else None
        own_split = split_named(str(values[-1])) if columns.split else None
        rows.append(_Row(number, given, read_label(values[0]), own_split or split, shown))
    return rows


def _add_rows(
    listing: Listing, rows: Sequence[_Row], inside: dict[int, Path], find: Callable[[str], Path | None]
) -> None:
    seen = set()
    for row in rows:
        path = inside.get(row.number) or (find(row.given) if row.given is not None else None)
        in_table = row.given is None or row.number in inside
        name = f"{row.shown}#{row.number + 1}" if in_table else readable_name(row.given or "")
        if row.label is None:
            listing.skipped.append(Skipped(name, f"no label ({row.place})"))
        elif path is None:
            reason = f"no such file ({row.place})" if row.given is not None else "no image in this row"
            listing.skipped.append(Skipped(name, reason))
        elif (path, row.label, row.split) in seen:
            listing.skipped.append(Skipped(name, f"listed already, with this label ({row.place})", expected=True))
        else:
            seen.add((path, row.label, row.split))
            listing.files.append(Listed(path, name, row.label, row.split))


def _label_reader(table: Table, column: str) -> Callable[[Any], str | None]:
    names = table.label_names.get(column)

    def read(value: Any) -> str | None:
        if value is None or value == "" or (isinstance(value, str) and value.isspace()):
            return None
        if isinstance(value, float):
            if math.isnan(value):
                return None
            value = int(value) if value.is_integer() else value  # whole numbers beside gaps are stored as floats
        if names is not None and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else None  # -1: `datasets` writes it for "no label"
        if isinstance(value, list | dict):
            raise DataError(
                f"the column {column!r} of {table.path.name} holds several labels for one image; exactly one is needed"
            )
        label = readable_name(str(value)).strip()
        if "\n" in label:
            raise DataError(
                f"{table.path} has a label of several lines, {one_line(label)!r}; look for a quotation mark too many"
            )
        return label

    return read


def _unpack(tables: Sequence[Table], column: str, settings: Settings, unpacking: Unpacking | None) -> Path:
    """A folder with one folder per part, with one file per row that holds bytes, named by the row's number."""
    stored = sum(table.path.stat().st_size for table in tables)

    def fill(folder: Path) -> None:
        require_room(settings.data_dir, stored, settings.min_free_bytes)
        written, checked = 0, 0
        for number, table in enumerate(tables):
            part = folder / str(number)
            part.mkdir()
            assert table.images is not None
            for row, content in enumerate(table.images(column)):
                if content is None:
                    continue
                written += len(content)
                if written > settings.max_unpacked_bytes:
                    raise DataError(
                        f"the images in {table.path.name} take more than {settings.max_unpacked_bytes:,} bytes "
                        "(set TL_MAX_UNPACKED_BYTES to allow more)"
                    )
                if written - checked >= _ROOM_CHECKED_EVERY:
                    require_room(settings.data_dir, max(len(content), stored - written), settings.min_free_bytes)
                    checked = written
                (part / f"{row}{_ending(content)}").write_bytes(content)
                if unpacking is not None:
                    unpacking.tell(written, stored)

    identity = [_LAYOUT, column, fingerprint([table.path for table in tables])]
    return make_once(settings.data_dir, tables[0].path.parent.name, identity, fill, unpacking)


def _unpacked_rows(folder: Path) -> dict[int, Path]:
    with os.scandir(folder) as entries:
        return {int(entry.name.partition(".")[0]): folder / entry.name for entry in entries}


def _ending(content: bytes) -> str:
    for start, ending in _ENDINGS.items():
        if content.startswith(start):
            return ending
    return ".webp" if content[8:12] == b"WEBP" else ".img"


def _files_below(tree: Folder | None, root: Path, settings: Settings) -> dict[str, Path]:
    try:
        return files_by_name(tree or walk(root, settings))
    except DataError:  # too many files to look through; then none is found
        return {}


def _named(by_name: dict[str, Path], given: str, within: Path | None) -> Path | None:
    path = by_name.get(PurePath(given.replace("\\", "/")).name)
    return path if path is not None and is_within(path, within) else None


def _shown_name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name
