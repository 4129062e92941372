"""The vocabulary of the image side: a listed file, a verified picture, a collection. Plain values, no reading.

Must not know: how files are found, decoded or trained on.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)


@dataclass(frozen=True)
class Listed:
    """A file that claims to be a labelled image; nothing of it has been read yet."""

    path: Path
    name: str  # as shown to a person: relative to what they gave, with forward slashes
    label: str
    split: str | None = None  # one of SPLITS where the data came divided


@dataclass(frozen=True)
class Picture:
    """A file that was opened and decoded to its last row.

    `digest` identifies the file's bytes, `phash` its looks (64 bits); `grey` is the upright picture shrunk to
    GREY_SIDE × GREY_SIDE grey values, row by row. `width` and `height` are those of the upright picture.
    `special` says why plain `PIL.Image.open(path).convert("RGB")` would read it wrongly ("" where it would not).
    """

    path: Path
    name: str
    label: str
    split: str | None
    width: int
    height: int
    mode: str
    digest: str
    phash: int
    grey: bytes
    special: str = ""


GREY_SIDE = 16


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, with the reason in words; `expected` where nobody would have taken it for an image."""

    name: str
    reason: str
    expected: bool = False


@dataclass
class Collection:
    """Everything that was found under one DATA argument, verified."""

    source: str  # as the person named it
    pictures: list[Picture]
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was decided on the person's behalf, in sentences

    @property
    def classes(self) -> list[str]:
        """Class names in natural order ("2" before "10"), stable for one set of names."""
        return sorted({picture.label for picture in self.pictures}, key=natural_key)

    @property
    def given_splits(self) -> tuple[str, ...]:
        present = {picture.split for picture in self.pictures}
        return tuple(name for name in SPLITS if name in present)

    @property
    def fingerprint(self) -> str:
        """The same for the same images under the same classes and splits, whatever they are called and wherever they
        lie."""
        rows = sorted((picture.digest, picture.label, picture.split or "") for picture in self.pictures)
        return blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that orders runs of digits by value; total, so that different names never compare equal."""
    parts: list[tuple[int, int, str]] = []
    digits, other = "", ""
    for character in text:
        if character in "0123456789":
            if other:
                parts.append((1, 0, other.casefold()))
                other = ""
            digits += character
        else:
            if digits:
                parts.append((0, int(digits[:18]), digits))
                digits = ""
            other += character
    if digits:
        parts.append((0, int(digits[:18]), digits))
    if other:
        parts.append((1, 0, other.casefold()))
    return parts, text


def targets_of(pictures: Sequence[Picture], labels: Sequence[str]) -> list[int]:
    """Class numbers of pictures, in the order of `labels`."""
    number = {label: index for index, label in enumerate(labels)}
    return [number[picture.label] for picture in pictures]
