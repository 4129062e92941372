"""Which column of a table holds the images, which the labels, which the split: found by name and content, or named.

Must not know: how tables are read or what becomes of the rows.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from tl_core.errors import DataError
from tl_core.images.listing import split_named
from tl_core.images.table_files import Kind, Table

# In order of preference; compared without case, spaces, dashes and underscores.
_IMAGE_NAMES = (
    "image", "img", "picture", "photo", "imagefile", "filename", "file", "imagepath", "imgpath", "filepath", "path",
    "imagename", "imgname", "images", "pic", "imageid", "imgid", "imageurl", "url", "id",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "class", "labels", "classname", "labelname", "category", "target", "classlabel", "finelabel", "species",
    "breed", "diagnosis", "variety", "tag", "type", "y", "classes", "classid", "labelid", "categoryid",
)  # fmt: skip
_SPLIT_NAMES = ("split", "subset", "partition", "set", "fold")
_ROWS_TRIED = 50


@dataclass(frozen=True)
class Columns:
    """The columns to read; `split` is None where the table does not divide its rows."""

    image: str
    label: str
    split: str | None


def choose_columns(
    table: Table, image_column: str | None, label_column: str | None, is_file: Callable[[str], bool]
) -> Columns:
    """Columns as named by the caller, else as found; `is_file(value)` tells whether a text names a readable file.

    Raises DataError that lists the columns for an unknown name, or when none fits.
    """
    for name, meant in ((image_column, "images"), (label_column, "labels")):
        if name is not None and name not in table.kinds:
            raise DataError(
                f"{table.path} has no column {name!r} for the {meant}{_nearest(name, table)}; {_listed(table)}"
            )
    split = _find_split(table, {image_column, label_column})
    image = image_column or _find_image(table, {label_column, split}, is_file)
    label = label_column or _find_label(table, {image, split})
    return Columns(image, label, split)


def _find_image(table: Table, taken: set[str | None], is_file: Callable[[str], bool]) -> str:
    kinds: tuple[Kind, ...] = ("image", "bytes")
    for kind in kinds:
        if found := _by_name(_free(table, taken, kind), _IMAGE_NAMES, any_will_do=True):
            return found
    texts = _free(table, taken, "text", "number")
    first_rows = list(islice(table.rows(texts), _ROWS_TRIED))
    naming_files = [
        name
        for position, name in enumerate(texts)
        if any(row[position] is not None and is_file(str(row[position])) for row in first_rows)
    ]
    found = _by_name(naming_files, _IMAGE_NAMES, any_will_do=True) or _by_name(texts, _IMAGE_NAMES)
    if found is None:
        raise DataError(
            f"{table.path} has no column with images: none holds bytes or names a file beside the table; "
            f"{_listed(table)}; name one with --image-column"
        )
    return found


def _find_label(table: Table, taken: set[str | None]) -> str:
    free = _free(table, taken, "text", "number")
    found = _by_name(free, _LABEL_NAMES)
    if found is None:
        named = [name for name in free if name in table.label_names]
        found = named[0] if len(named) == 1 else free[0] if len(free) == 1 else None
    if found is None:
        raise DataError(
            f"{table.path} has no column that is clearly the label; {_listed(table)}; name it with --label-column"
        )
    return found


def _find_split(table: Table, taken: set[str | None]) -> str | None:
    """A column named like a split, if each of its values names one."""
    found = _by_name(_free(table, taken, "text"), _SPLIT_NAMES)
    if found is None or any(split_named(str(value or "")) is None for (value,) in table.rows([found])):
        return None
    return found


def _free(table: Table, taken: set[str | None], *kinds: Kind) -> list[str]:
    """Columns of these kinds that are not taken, nor only the row numbers that pandas adds to a table."""
    return [
        name
        for name, kind in table.kinds.items()
        if kind in kinds and name not in taken and name and not name.startswith(("Unnamed: ", "__index_level_"))
    ]


def _by_name(columns: Sequence[str], wanted: Sequence[str], any_will_do: bool = False) -> str | None:
    plain = {"".join(filter(str.isalnum, name.casefold())): name for name in reversed(columns)}
    for name in wanted:
        if name in plain:
            return plain[name]
    return columns[0] if any_will_do and columns else None


def _nearest(name: str, table: Table) -> str:
    near = difflib.get_close_matches(name, table.kinds, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _listed(table: Table) -> str:
    return "its columns are " + ", ".join(map(repr, table.kinds)) if table.kinds else "it has no columns"
