"""Which column of a table holds the images, which the labels, which the split: found by name and content, or named.

Must not know: how tables are read or what becomes of the rows.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from tl_core.errors import DataError
from tl_core.images.listing import split_named
from tl_core.images.table_files import Kind, Table
from tl_core.images.wording import count, name_some

# In order of preference, English, German, French and Spanish; compared without case, spaces, dashes and underscores.
_IMAGE_NAMES = (
    "image", "img", "picture", "photo", "imagefile", "filename", "file", "imagepath", "imgpath", "filepath", "path",
    "imagename", "imgname", "images", "pic", "bild", "datei", "fichier", "imagen", "archivo", "imageid", "imgid",
    "imageurl", "url", "id",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "class", "labels", "classname", "labelname", "category", "target", "classlabel", "klasse", "etikett",
    "classe", "étiquette", "etiquette", "clase", "etiqueta", "finelabel", "species", "breed", "diagnosis", "dx",
    "variety", "tag", "type", "y", "classes", "classid", "labelid", "categoryid",
)  # fmt: skip
_SPLIT_NAMES = ("split", "subset", "partition", "set", "fold")
_ROWS_TRIED = 50


@dataclass(frozen=True)
class Columns:
    """The columns to read; `split` is None where the table does not divide its rows. `notes` are for the person."""

    image: str
    label: str
    split: str | None
    notes: tuple[str, ...] = ()


def choose_columns(
    tables: Sequence[Table], image_column: str | None, label_column: str | None, is_file: Callable[[str], bool]
) -> Columns:
    """Columns of tables that all have the same, as named by the caller, else as found; `is_file(value)` tells whether a
    text names a readable file.

    Raises DataError that lists the columns for an unknown name, or when none fits.
    """
    table = tables[0]
    for name, meant in ((image_column, "images"), (label_column, "labels")):
        if name is not None and name not in table.kinds:
            raise DataError(
                f"{table.path} has no column {name!r} for the {meant}{_nearest(name, table)}; {_listed(table)}"
            )
    split, notes = _find_split(tables, {image_column, label_column})
    image = image_column or _find_image(table, {label_column, split}, is_file)
    label = label_column or _find_label(tables, {image, split})
    return Columns(image, label, split, tuple(notes))


def named_label(table: Table) -> str | None:
    """The column that is the label by its name."""
    return _label_of(table, _free(table, set(), "text", "number"))


def _label_of(table: Table, columns: Sequence[str]) -> str | None:
    """Of these columns the one that is the label by its name. A `y` beside an `x` is a coordinate."""
    if "x" in {name.casefold() for name in _free(table, set(), "text", "number")}:
        columns = [name for name in columns if name.casefold() != "y"]
    return _by_name(columns, _LABEL_NAMES)


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


def _find_label(tables: Sequence[Table], taken: set[str | None]) -> str:
    """A column of several values. Where the one that is called a label has a single value, no other is guessed."""
    table = tables[0]
    free = _free(table, taken, "text", "number")
    constant = _constant(tables, free) if len(free) > 1 else []
    varied = [name for name in free if name not in constant] or free
    found = _label_of(table, varied)
    if found is None and _label_of(table, constant) is None:
        named = [name for name in varied if name in table.label_names]
        found = named[0] if len(named) == 1 else varied[0] if len(varied) == 1 else None
    if found is None:
        same = f"; with one value in all rows it is not {name_some(constant)}" if constant else ""
        raise DataError(
            f"{table.path} has no column that is clearly the label; {_listed(table)}{same}; name it with --label-column"
        )
    return found


def _constant(tables: Sequence[Table], columns: Sequence[str]) -> list[str]:
    """Columns that hold one value at most in all rows of all tables, gaps apart."""
    first: dict[str, str] = {}
    left = list(columns)
    for table in tables:
        for row in table.rows(columns):
            for name, value in zip(columns, row, strict=True):
                text = "" if value is None else str(value).strip()
                if text and text != first.setdefault(name, text) and name in left:
                    left.remove(name)
            if not left:
                return []
    return left


def _find_split(tables: Sequence[Table], taken: set[str | None]) -> tuple[str | None, list[str]]:
    """A column named like a split, if most of its values name one, and what to say about the others."""
    found = _by_name(_free(tables[0], taken, "text"), _SPLIT_NAMES)
    if found is None:
        return None, []
    values = Counter(str(value) for table in tables for (value,) in table.rows([found]) if value is not None)
    unknown = [value for value in values if value.strip() and split_named(value) is None]
    strange = sum(values[value] for value in unknown)
    if 2 * strange >= values.total():
        return None, [f"The column {found!r} divides nothing: few of its values name train, validation or test."]
    if strange:
        rows, name = count(strange, "row", "rows"), "names" if len(unknown) == 1 else "name"
        return found, [f"In the column {found!r}, {name_some(unknown)} ({rows}) {name} no known part."]
    return found, []


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
