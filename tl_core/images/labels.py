"""Which pictures of a draft are of which class: the rows of its table, and the names that a class can have.

Must not know: folders, uploads, who edits.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tl_core.errors import DataError
from tl_core.files import json_text, write_atomically
from tl_core.images.collection import Picture, natural_key
from tl_core.images.store import digest_of
from tl_core.images.wording import name_some, printable

# Long enough for a sentence, short enough for a table's cell.
LONGEST_CLASS_NAME = 100


@dataclass(frozen=True)
class Row:
    """A picture of a draft: `file` is its name there, `was` its name in the source while that is being adopted."""

    file: str
    label: str
    split: str | None = None
    was: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        return digest_of(self.file)


@dataclass
class Labels:
    """The classes and pictures of a draft, in the order they came, and the source that they are taken from."""

    source: str | None
    classes: list[str]
    rows: list[Row]

    def counts(self) -> dict[str, int]:
        """How many pictures each class has, which may be none."""
        counts = Counter(row.label for row in self.rows)
        return {name: counts[name] for name in self.classes}

    def require_two(self) -> None:
        """Raise DataError while there is nothing to tell apart: no pictures, or those of a single class."""
        filled = [name for name, number in self.counts().items() if number]
        if not filled:
            raise DataError("there are no images yet: name a class and add images of it, then a second class")
        if len(filled) == 1:
            raise DataError(f"only the class {filled[0]!r} has images; add a second class, to tell the two apart")

    def known(self, name: object) -> str | None:
        """The class meant by a name, however its letters are composed and its blanks are spaced."""
        wanted = _plain(name)
        exact = [label for label in self.classes if label == name]
        return next(iter(exact or [label for label in self.classes if _plain(label) == wanted]), None)

    def existing(self, name: object) -> str:
        found = self.known(name)
        if found is None:
            raise DataError(f"there is no class {str(name)!r}; the classes are {name_some(self.classes) or 'none yet'}")
        return found

    def existing_or_new(self, name: object) -> str:
        found = self.known(name)
        if found is None:
            self.classes.append(found := class_name(name))
        return found

    def adopt(self, pictures: Sequence[Picture], files: Iterable[str]) -> None:
        """Take over the pictures of the source, kept in the draft as `files`; its classes come first."""
        for picture, file in zip(pictures, files, strict=True):
            # A label of several lines, as a folder may have, is refused in a table; so is one of blanks alone.
            label = " ".join(picture.label.split()) or "_"
            self.rows.append(Row(file, label, picture.split, was=picture.name))
        found = sorted({row.label for row in self.rows}, key=natural_key)
        self.classes = list(dict.fromkeys([*found, *self.classes]))

    def add(self, label: str, files: Iterable[str]) -> list[str]:
        """Add pictures to a class; those whose content it has already are left out, and returned."""
        there = {row.digest for row in self.rows if row.label == label}
        copies = []
        for row in (Row(file, label) for file in files):
            if row.digest in there:
                copies.append(row.file)
            else:
                there.add(row.digest)
                self.rows.append(row)
        return copies

    def chosen(self, names: Collection[str]) -> set[int]:
        """The positions of pictures; a picture that an edit meanwhile took out is passed over, but not all of them."""
        wanted = set(names) - {""}
        found = {number for number, row in enumerate(self.rows) if row.file in wanted or row.was in wanted}
        if wanted and not found:
            raise DataError(
                f"{name_some(sorted(wanted))}: no such image in this collection; it was changed meanwhile, look again"
            )
        return found

    def remove(self, positions: set[int]) -> int:
        self.rows = [row for number, row in enumerate(self.rows) if number not in positions]
        return len(positions)

    def move(self, positions: set[int], label: str) -> int:
        self.rows = [replace(row, label=label) if number in positions else row for number, row in enumerate(self.rows)]
        return len(positions)

    def rename(self, old: str, new: str) -> str:
        """The class that `old` is now: `new`, or the one that is called so already."""
        there = self.known(new)
        after = new if there is None or there == old else there
        self.classes = list(dict.fromkeys(after if name == old else name for name in self.classes))
        self.move({number for number, row in enumerate(self.rows) if row.label == old}, after)
        return after


def class_name(text: object) -> str:
    """A name as a class can have it: one line, composed letters, nothing unseen. Raises DataError for no name."""
    name = _plain(text)
    if not name:
        raise DataError("the class has no name; give it one, such as the thing that its images show")
    if len(name) > LONGEST_CLASS_NAME:
        raise DataError(
            f"the name of the class has {len(name)} letters; at most {LONGEST_CLASS_NAME} are taken, shorten it"
        )
    return name


def _plain(text: object) -> str:
    composed = " ".join(unicodedata.normalize("NFC", text if isinstance(text, str) else "").split())
    return "".join(letter for letter in composed if printable(letter) == letter).strip()


def read_rows(table: Path) -> list[Row]:
    """The rows of a table, none where there is no table. Raises DataError for one that is damaged."""
    try:
        with table.open(encoding="utf-8", newline="\n") as lines:
            return [Row(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise DataError(f"{table} was damaged by another program ({error}); begin a new collection") from error


def write_rows(table: Path, rows: Iterable[Row]) -> None:
    """Replace the table as a whole."""
    write_atomically(table, "".join(map(_line, rows)))


def _line(row: Row) -> str:
    split = {"split": row.split} if row.split else {}  # a column without values would be asked about
    return json_text({"file": row.file, "label": row.label, **split}) + "\n"
