"""Which files of a folder are images, and of which class: by where they lie. Nothing is opened here.

Must not know: what is inside a file, how archives and tables are read.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Literal

from tl_core.errors import DataError
from tl_core.images.collection import TEST, TRAIN, VALIDATION, Listed, Skipped, natural_key
from tl_core.images.decode import readable_extensions
from tl_core.images.table_files import TABLE_EXTENSIONS
from tl_core.images.wording import count, name_some
from tl_core.settings import Settings

ARCHIVE_EXTENSIONS = frozenset({".zip"})
# `unknown` has a name without an ending: its content decides whether it is an image.
Kind = Literal["image", "unknown", "table", "archive", "other"]

_SPLIT_NAMES = {
    TRAIN: {"train", "training"},
    VALIDATION: {"val", "valid", "validation", "dev"},
    TEST: {"test", "testing"},
}
# What operating systems and network drives leave in folders, beside hidden files.
_CLUTTER = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"}
_DOCUMENTS = {"readme", "license", "licence", "copying", "notice", "authors", "changelog", "makefile", "citation"}
_NOT_UNICODE = re.compile("[\\ud800-\\udfff]")
# Deeper folders are not class folders; the limit keeps the walk from exhausting Python's stack.
_MAX_DEPTH = 50


@dataclass
class Listing:
    """Files that claim to be labelled images, what was left out already, and what was decided on the way."""

    files: list[Listed] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(eq=False)  # compared by identity: two folders are never the same one
class Folder:
    """A folder as it was walked: the names of its files by kind, and its folders, each in natural order."""

    path: Path
    images: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    folders: list["Folder"] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def image_count(self) -> int:
        """Images here and below."""
        return len(self.images) + sum(folder.image_count for folder in self.folders)

    @cached_property
    def table_count(self) -> int:
        return len(self.tables) + sum(folder.table_count for folder in self.folders)

    @property
    def with_images(self) -> list["Folder"]:
        return [folder for folder in self.folders if folder.image_count]

    def below(self) -> Iterator["Folder"]:
        """This folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.below()


def split_named(name: str) -> str | None:
    """The split that a folder or column value of this name means, in any case; None if it means none."""
    word = name.strip().casefold()
    return next((split for split, names in _SPLIT_NAMES.items() if word in names), None)


def kind_of(name: str) -> Kind:
    """What a file is by its name, in any case."""
    extension = os.path.splitext(name)[1].lower()
    if extension in readable_extensions():
        return "image"
    if not extension and name.casefold() not in _DOCUMENTS:
        return "unknown"
    if extension in TABLE_EXTENSIONS:
        return "table"
    return "archive" if extension in ARCHIVE_EXTENSIONS else "other"


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by an operating system."""
    return name.startswith(".") or name.casefold() in _CLUTTER


def readable_name(path: PurePath | str) -> str:
    """The path as text that can be written anywhere, with forward slashes: what is not Unicode in it becomes `�`."""
    return _NOT_UNICODE.sub("\ufffd", path if isinstance(path, str) else path.as_posix())


def walk(root: Path, settings: Settings) -> Folder:
    """All there is below `root`, without clutter. Links to folders are not followed.

    Raises DataError when there are more than `settings.max_files` files, or `root` cannot be read.
    """
    seen = 0

    def visit(path: Path, depth: int) -> Folder:
        nonlocal seen
        folder = Folder(path)
        with os.scandir(path) as scanned:
            entries = sorted((e for e in scanned if not is_clutter(e.name)), key=lambda e: natural_key(e.name))
        for entry in entries:
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link that leads to itself
                is_folder = is_file = False
            if is_folder and entry.is_symlink():
                folder.skipped.append((entry.name, "a link to a folder; links are not followed"))
            elif is_folder and depth == _MAX_DEPTH:
                folder.skipped.append((entry.name, f"deeper than {_MAX_DEPTH} folders"))
            elif is_folder:
                try:
                    folder.folders.append(visit(path / entry.name, depth + 1))
                except OSError as error:
                    folder.skipped.append((entry.name, f"cannot be opened: {error.strerror}"))
            elif is_file:
                seen += 1
                if seen > settings.max_files:
                    raise DataError(
                        f"{root} holds more than {settings.max_files:,} files; give a folder with fewer, or set "
                        "TL_MAX_FILES to allow more"
                    )
                _sort_in(folder, entry.name)
            else:
                folder.skipped.append((entry.name, "not an image: a broken link, a device or a pipe"))
        return folder

    try:
        return visit(root, 0)
    except OSError as error:
        raise DataError(f"{root} cannot be opened: {error.strerror}") from error


def _sort_in(folder: Folder, name: str) -> None:
    kind = kind_of(name)
    if kind in {"image", "unknown"}:
        folder.images.append(name)
    elif kind == "table":
        folder.tables.append(name)
    elif kind == "archive":
        folder.archives.append(name)
    elif name.lower().endswith((".heic", ".heif")):
        folder.skipped.append((name, "a HEIC photo, which cannot be read; save it as JPEG"))
    else:
        folder.others.append(name)


def unwrapped(folder: Folder) -> list[Folder]:
    """The folder, then what it wraps, down to the one that matters (`data/dataset/cats` -> `data`, `data/dataset`)."""
    chain = [folder]
    while True:
        inside = [inner for inner in chain[-1].folders if inner.image_count or inner.table_count]
        if len(inside) != 1 or not _wraps(inside[0]):
            return chain
        chain.append(inside[0])


def _wraps(folder: Folder) -> bool:
    """Whether a folder beside no other is no class, but lies around what matters.

    Loose pictures in it say that it is a class, unless class folders hold most of its pictures.
    """
    if not folder.images:
        return bool(folder.tables or folder.folders)
    return 2 * len(folder.images) < folder.image_count and _leads_to_classes(folder)


def _leads_to_classes(folder: Folder) -> bool:
    if len(folder.with_images) == 1 and not split_folders(folder):
        return _leads_to_classes(folder.with_images[0])
    return bool(split_folders(folder)) or len(class_folders(folder)) > 1


def split_folders(folder: Folder) -> dict[str, list[Folder]]:
    """The folders that divide the data, by split; empty when the folders are classes.

    Folders are splits if they are named like ones and hold class folders; beside others, only if two of them hold the
    same classes. So a class may be called "test" or "train station".
    """
    named = [inner for inner in folder.with_images if split_named(inner.name)]
    divided = [inner for inner in named if inner.with_images]
    if len(named) < len(folder.with_images):
        held = [name for inner in divided for name in {c.name for c in inner.with_images}]
        if len(held) == len(set(held)):
            return {}
    found: dict[str, list[Folder]] = {}
    for inner in named if divided else []:
        found.setdefault(split_named(inner.name) or "", []).append(inner)
    return found


def class_folders(folder: Folder) -> list[Folder]:
    """The folders that are classes, in undivided data; none if all are named like splits."""
    if all(split_named(inner.name) for inner in folder.with_images):
        return []
    return folder.with_images


def list_folder(tree: Folder, source: str) -> Listing:
    """The labelled files of class folders, or of class folders inside split folders. Names are relative to `tree`.

    `source` is what errors call the data. Raises DataError when there are no images, no class folders, only one class.
    """
    listing, root, folder = Listing(), tree.path, unwrapped(tree)[-1]
    splits = split_folders(folder)
    classes = [] if splits else class_folders(folder)
    used = {*classes, *(part for parts in splits.values() for part in parts)}
    for split, parts in splits.items():
        for part in parts:
            for inner in part.with_images:
                _add_class(listing, inner, split, root)
            _leave_out(listing, part, part.images, f"it lies directly in {part.name!r}, so it has no class", root)
    for inner in classes:
        _add_class(listing, inner, None, root)
    for inner in folder.with_images:
        if inner not in used:
            for below in inner.below():
                _leave_out(listing, below, below.images, "in none of the train, validation and test folders", root)
    for outer in unwrapped(tree):
        _leave_out(listing, outer, outer.images, "it lies beside the class folders, so it has no class", root)
    for inner in tree.below():
        listing.skipped += [Skipped(_shown(inner, name, root), reason) for name, reason in inner.skipped]
        _leave_out(listing, inner, inner.tables, "a table; the class folders were used instead", root, expected=True)
        _leave_out(listing, inner, inner.archives, "an archive; unpack it", root)
        _leave_out(listing, inner, inner.others, "not an image", root, expected=True)
    _require_classes(listing, folder, source)
    empty = [inner.name for inner in folder.folders if not inner.image_count]
    if empty:
        listing.notes.append(f"Folders without images were passed over: {name_some(empty)}.")
    tables = [name for outer in unwrapped(tree) for name in outer.tables]
    if tables:
        listing.notes.append(
            f"The class folders were used, and not the labels in {name_some(tables)}; to take them from there, give "
            "that file as the data, or name its column with --label-column."
        )
    divided = [inner.name for inner in classes if inner.with_images and not class_folders(inner)]
    if divided:
        listing.notes.append(
            f"{count(len(divided), 'class folder holds', 'class folders hold')} folders named like train and test "
            f"({name_some(divided)}): that division was not used; put them outermost, as train/cat and test/cat."
        )
    return listing


def _add_class(listing: Listing, folder: Folder, split: str | None, root: Path) -> None:
    for inner in folder.below():
        for name in inner.images:
            listing.files.append(
                Listed(inner.path / name, _shown(inner, name, root), readable_name(folder.name), split)
            )


def _leave_out(
    listing: Listing, folder: Folder, names: list[str], reason: str, root: Path, expected: bool = False
) -> None:
    listing.skipped += [Skipped(_shown(folder, name, root), reason, expected) for name in names]


def _shown(folder: Folder, name: str, root: Path) -> str:
    return readable_name((folder.path / name).relative_to(root))


def _require_classes(listing: Listing, folder: Folder, source: str) -> None:
    labels = {file.label for file in listing.files}
    if len(labels) > 1:
        return
    example = "such as cat/1.jpg and dog/1.jpg"
    if labels:
        raise DataError(
            f"{source} holds only one class, {labels.pop()!r}; two are needed to tell apart: "
            f"one folder for each, {example}"
        )
    if folder.image_count:
        where = "directly in the folder" if folder.images else "in folders named like splits, without class folders"
        found = count(
            folder.image_count,
            f"image of {source} lies {where}, so it has no class",
            f"images of {source} lie {where}, so they have no class",
        )
        raise DataError(
            f"the {found}: put images of one class into a folder named after it, {example}, or add a labels.csv with "
            "the columns file and label"
        )
    others = [skipped.name for skipped in listing.skipped]
    number = count(len(others), "other file", "other files")
    found = f", but {number}, such as {others[0]}" if others else ": it is empty"
    raise DataError(f"{source} holds no images{found}; put images into one folder for each class, {example}")
