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
from tl_core.images.listing import Folder, Listing, class_folders, readable_name, split_folders, split_named, unwrapped
from tl_core.images.table_files import PARQUET_TABLES, Table, open_table
from tl_core.images.unpacked import fingerprint, make_once, require_room
from tl_core.settings import Settings

# To be raised when the layout of unpacked tables changes.
_LAYOUT = "table 1"
# File names, without ending, of the text table that is meant when there are others beside it.
_USUAL_STEMS = ("metadata", "labels", "label", "annotations")
_DETAILS_SHOWN = 10
_ENDINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


@dataclass(frozen=True)
class Part:
    """One file of a table, and the split that its name or folder gives to its rows."""

    path: Path
    split: str | None = None


def table_parts(tree: Folder) -> list[Part]:
    """The files of the table that labels a folder's images or holds them; empty where class folders do that.

    Raises DataError when several tables would do.
    """
    chain = unwrapped(tree)
    if not tree.table_count or split_folders(chain[-1]) or len(class_folders(chain[-1])) > 1:
        return []
    for folder in chain:
        if folder.tables:
            return _parts_of(folder, tree.path)
    # Each split has its own table, or its own shards: train/metadata.csv, default/train/0000.parquet.
    return [part for folder in chain[-1].folders for part in (_parts_of(folder, tree.path) if folder.tables else [])]


def _parts_of(folder: Folder, root: Path) -> list[Part]:
    """The files among a folder's tables that make one table: all parquet files, or the text table most likely meant."""
    paths = [folder.path / name for name in folder.tables]
    parquet = [path for path in paths if path.suffix.lower() in PARQUET_TABLES]
    texts = {path.stem.casefold(): path for path in paths if path not in parquet}
    split = [path for stem, path in texts.items() if split_named(stem)]
    chosen = parquet or [texts[stem] for stem in _USUAL_STEMS if stem in texts][:1] or split or list(texts.values())
    if len(chosen) > 1 and not (parquet or split):
        raise DataError(
            f"{folder.path} holds several tables: {', '.join(path.name for path in chosen)}; name the one to use"
        )
    return [Part(path, _split_of(path.relative_to(root))) for path in chosen]


def list_table(
    parts: Sequence[Part],
    root: Path,
    settings: Settings,
    image_column: str | None = None,
    label_column: str | None = None,
    tree: Folder | None = None,
    within: Path | None = None,
) -> Listing:
    """The rows of one table as labelled files. Names of files inside a table are relative to `root`.

    Paths in a table are relative to its folder; if none leads anywhere, files of that name (with or without ending) are
    looked for in `tree`. With `within`, only files below that folder are taken.
    Raises DataError when a part cannot be read, parts differ, columns are not found, or no row names a file.
    """
    parts = sorted(parts, key=lambda part: SPLITS.index(part.split) if part.split else len(SPLITS))
    listing = Listing()
    parts, tables = _belonging_together(parts, listing)
    first = tables[0]
    row_count = sum(table.row_count for table in tables)
    if not row_count:
        raise DataError(f"{first.path} has no rows")
    if row_count > settings.max_files:
        raise DataError(f"{first.path} has {row_count:,} rows; at most {settings.max_files:,} are taken (TL_MAX_FILES)")

    within = within.resolve() if within is not None else None

    def beside_table(name: str, table: Table = first) -> Path | None:
        return _file_at(table.path.parent, name, within)

    columns = choose_columns(first, image_column, label_column, lambda name: beside_table(name) is not None)
    if first.kinds[columns.image] in {"image", "bytes"}:
        unpacked = _unpack(tables, columns.image, settings)
        inside = [_unpacked_rows(unpacked / str(number)) for number in range(len(tables))]
    else:
        inside = [{} for _ in tables]
    for part, table, files in zip(parts, tables, inside, strict=True):
        _add_rows(listing, table, columns, part.split, _shown_name(part.path, root), files, beside_table)
    if not listing.files and tree is not None:
        by_name = _files_by_name(tree)
        listing.skipped.clear()
        for part, table in zip(parts, tables, strict=True):
            shown = _shown_name(part.path, root)
            _add_rows(listing, table, columns, part.split, shown, {}, lambda name, _: by_name.get(PurePath(name).name))
        listing.notes.append(
            f"The files of column {columns.image!r} were found by their names in the folders beside the table."
        )
    if not listing.files:
        raise DataError(
            f"no row of {first.path} gives an image (column {columns.image!r}) and a label (column {columns.label!r}); "
            "paths in a table are relative to its folder",
            [f"{skipped.name}: {skipped.reason}" for skipped in listing.skipped[:_DETAILS_SHOWN]],
        )
    listing.notes.append(
        f"Images are taken from the column {columns.image!r}, labels from {columns.label!r}"
        + (f", splits from {columns.split!r}." if columns.split else ".")
    )
    return listing


def _belonging_together(parts: Sequence[Part], listing: Listing) -> tuple[list[Part], list[Table]]:
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
        table = open_table(part.path)
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


def _add_rows(
    listing: Listing,
    table: Table,
    columns: Columns,
    split: str | None,
    shown: str,
    inside: dict[int, Path],
    find: Callable[[str, Table], Path | None],
) -> None:
    has_paths = table.kinds[columns.image] != "bytes"
    wanted = [columns.label, *([columns.image] if has_paths else []), *([columns.split] if columns.split else [])]
    read_label = _label_reader(table, columns.label)
    for row, values in enumerate(table.rows(wanted)):
        place = f"row {row + 1} of {shown}"
        given = str(values[1]) if has_paths and values[1] is not None else None
        path = inside.get(row) or (find(given, table) if given is not None else None)
        name = readable_name(given) if given is not None and row not in inside else f"{shown}#{row + 1}"
        label = read_label(values[0])
        if label is None:
            listing.skipped.append(Skipped(name, f"no label ({place})"))
        elif path is None:
            listing.skipped.append(
                Skipped(name, f"no such file ({place})" if given is not None else "no image in this row")
            )
        else:
            listing.files.append(Listed(path, name, label, split_named(str(values[-1])) if columns.split else split))


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
        return readable_name(str(value))

    return read


def _unpack(tables: Sequence[Table], column: str, settings: Settings) -> Path:
    """A folder with one folder per part, with one file per row that holds bytes, named by the row's number."""
    stored = sum(table.path.stat().st_size for table in tables)

    def fill(folder: Path) -> None:
        require_room(settings.data_dir, stored, settings.min_free_bytes)
        written = 0
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
                        "(TL_MAX_UNPACKED_BYTES)"
                    )
                (part / f"{row}{_ending(content)}").write_bytes(content)

    identity = [_LAYOUT, column, fingerprint([table.path for table in tables])]
    return make_once(settings.data_dir, tables[0].path.parent.name, identity, fill)


def _unpacked_rows(folder: Path) -> dict[int, Path]:
    with os.scandir(folder) as entries:
        return {int(entry.name.partition(".")[0]): folder / entry.name for entry in entries}


def _ending(content: bytes) -> str:
    for start, ending in _ENDINGS.items():
        if content.startswith(start):
            return ending
    return ".webp" if content[8:12] == b"WEBP" else ".img"


def _file_at(folder: Path, name: str, within: Path | None) -> Path | None:
    for text in (name, name.replace("\\", "/")):  # the second for tables written on Windows
        try:
            path = folder / text
            if text and path.is_file():
                return path if within is None or path.resolve().is_relative_to(within) else None
        except (OSError, ValueError):  # longer than the system allows, or with a zero byte
            return None
    return None


def _files_by_name(tree: Folder) -> dict[str, Path]:
    """Images below a folder by file name, with and without ending; names that occur twice are left out."""
    found: dict[str, Path] = {}
    twice = set()
    for folder in tree.below():
        for image in folder.images:
            for name in {image, PurePath(image).stem}:
                if name in found:
                    twice.add(name)
                found[name] = folder.path / image
    return {name: path for name, path in found.items() if name not in twice}


def _split_of(inside: Path) -> str | None:
    """The split named by the nearest folder, else by the first word of the file name that is one."""
    for folder in reversed(inside.parts[:-1]):
        if split := split_named(folder):
            return split
    for word in re.split(r"[^a-z]+", inside.stem.lower()):
        if split := split_named(word):
            return split
    return None


def _shown_name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name
