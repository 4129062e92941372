"""The door: whatever form the data comes in, a verified collection of pictures goes out.

Must not know: the Hub, duplicates, how the collection is divided or trained on.
"""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tl_core.errors import DataError
from tl_core.images.archive import unpack, unpack_archives_of
from tl_core.images.collection import TRAIN, Collection, Listed, Picture, Skipped
from tl_core.images.decode import DARK, readable_extensions
from tl_core.images.listing import ARCHIVE_EXTENSIONS, Listing, class_folders, list_folder, unwrapped, walk
from tl_core.images.samples import SAMPLE_PREFIX, sample_folder
from tl_core.images.scan import Invitation, verify
from tl_core.images.table_choice import Part, table_parts
from tl_core.images.table_files import TABLE_EXTENSIONS
from tl_core.images.tables import list_table
from tl_core.images.unpacked import Unpacking
from tl_core.images.wording import DETAILS_SHOWN, count, name_some
from tl_core.settings import Settings


def open_collection(
    data: str,
    settings: Settings,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    unpacking: Callable[[int, int], None] | None = None,
    invite: Invitation | None = None,
) -> Collection:
    """Read `data`: `sample:NAME`, a folder, a zip archive, a table, or a folder with a table, its shards or archives.

    The columns count for tables only. `progress(done, total)` tells of the files verified, `unpacking(done, total)` of
    the bytes written before; `invite` is asked who looks on while files are decoded. Raises DataError when there is no
    such data, when it is not arranged as classes, and when fewer than two classes have a readable picture; what was
    unpacked for it is removed then. Raises what an onlooker raises.
    """
    job = Unpacking(unpacking)
    try:
        listing = _list(data, settings, (image_column, label_column), job)
        files = _one_spelling(listing.files, listing.notes)
        labels = {file.label for file in files}
        if len(labels) == 1:
            raise DataError(f"{data} holds only one class, {labels.pop()!r}; two are needed to tell apart")
        pictures, broken, notes = verify(files, settings, progress, invite)
        skipped = listing.skipped + broken
        pictures = _with_training_images(pictures, skipped)
        if len({picture.split for picture in pictures}) == 1:  # a lone split divides nothing
            pictures = [replace(picture, split=None) for picture in pictures]
        collection = Collection(data, pictures, skipped, listing.notes + notes)
        _require_two_classes(collection, broken)
    except DataError:
        job.take_back()
        raise
    _note_dark(collection)
    return collection


Columns = tuple[str | None, str | None]  # of the images and the labels, where the caller names them


def _list(data: str, settings: Settings, columns: Columns, unpacking: Unpacking) -> Listing:
    if data.startswith(SAMPLE_PREFIX):
        return list_folder(walk(sample_folder(data.removeprefix(SAMPLE_PREFIX), settings), settings), data)
    if not data.strip():
        raise DataError("no data was named; give a folder, a zip archive, a table or sample:digits")
    path = Path(data)
    try:
        path = path.expanduser()
        is_folder, is_file, is_something = path.is_dir(), path.is_file(), path.exists()
    except (OSError, ValueError, RuntimeError):  # longer than the system allows, a zero byte, ~ of nobody
        is_folder = is_file = is_something = False
    ending = path.suffix.lower()
    if is_file and ending in TABLE_EXTENSIONS:
        within = path.parent if settings.shared else None
        return list_table([Part(path)], path.parent, settings, *columns, within=within, unpacking=unpacking)
    if is_file and (ending in ARCHIVE_EXTENSIONS or _begins_like_a_zip(path)):
        return _list_folder(data, unpack(path, settings, unpacking), settings, columns, unpacking, confined=True)
    if is_folder:
        return _list_folder(data, path, settings, columns, unpacking, confined=settings.shared)
    if is_file and ending in readable_extensions():
        raise DataError(f"{data} is one image; give the folder that holds a folder of images for each class")
    if is_file:
        raise DataError(
            f"{data} is neither a folder, a zip archive nor a table ({', '.join(sorted(TABLE_EXTENSIONS))}); "
            "unpack it, and give the folder that holds a folder of images for each class"
        )
    if is_something:
        raise DataError(f"{data} is a device or a pipe; give a folder, a zip archive or a table")
    raise DataError(f"there is no {data}{_nearest_name(path)}; give a folder, a zip archive, a table or sample:digits")


def _list_folder(
    data: str, path: Path, settings: Settings, columns: Columns, unpacking: Unpacking, confined: bool
) -> Listing:
    """A folder by its class folders, or by the table that labels its images; `confined` keeps table paths inside."""
    tree = walk(path, settings)
    if not tree.image_count and any(folder.archives for folder in tree.below()):
        confined, tree = True, walk(unpack_archives_of(tree, settings, unpacking), settings)
    named = columns != (None, None)
    parts = table_parts(tree, wanted=named)
    if not parts:
        if named:
            raise DataError(f"{data} holds no table; columns can only be named for one")
        return list_folder(tree, data)
    within = tree.path if confined else None
    listing = list_table(parts, tree.path, settings, *columns, tree=tree, within=within, unpacking=unpacking)
    folders = [folder.name for folder in class_folders(unwrapped(tree)[-1])]
    if len(folders) > 1:
        listing.notes.append(
            f"The labels come from {name_some([part.path.name for part in parts])}; the names of the folders "
            f"({name_some(folders)}) count for nothing."
        )
    return listing


def _one_spelling(files: list[Listed], notes: list[str]) -> list[Listed]:
    """Labels that differ only in how Unicode composes their letters, or in blanks, become one, spelled as most are."""
    counts = Counter(file.label for file in files)
    spellings: dict[str, list[str]] = {}
    for label in counts:
        spellings.setdefault(" ".join(unicodedata.normalize("NFC", label).split()), []).append(label)
    chosen = {}
    for variants in spellings.values():
        if len(variants) > 1:
            usual = max(variants, key=lambda label: counts[label])
            chosen.update({variant: usual for variant in variants if variant != usual})
            notes.append(
                f"The class {usual!r} is written in {len(variants)} ways that look the same; they are one class here."
            )
    folded: dict[str, list[str]] = {}
    for label in spellings:
        folded.setdefault(label.casefold(), []).append(label)
    for variants in folded.values():
        if len(variants) > 1:
            notes.append(
                f"The classes {name_some(variants)} differ only in capital letters, and are kept apart; if they are "
                "meant to be one, write them alike."
            )
    return [replace(file, label=chosen[file.label]) if file.label in chosen else file for file in files]


def _note_dark(collection: Collection) -> None:
    dark = [picture.name for picture in collection.pictures if picture.special == DARK]
    if dark:
        collection.notes.append(
            f"{count(len(dark), '16-bit image uses', '16-bit images use')} 12 bits or fewer (such as "
            f"{name_some(dark[:1])}) and will be seen almost black: scale the values up to 65,535 first."
        )


def _with_training_images(pictures: list[Picture], skipped: list[Skipped]) -> list[Picture]:
    """In divided data, leave out the classes that the training part does not have: they cannot be learnt."""
    learnt = {picture.label for picture in pictures if picture.split == TRAIN}
    if not learnt:
        return pictures
    reason = "its class {!r} has no image in the train part"
    skipped += [Skipped(p.name, reason.format(p.label)) for p in pictures if p.label not in learnt]
    return [picture for picture in pictures if picture.label in learnt]


def _require_two_classes(collection: Collection, broken: list[Skipped]) -> None:
    classes, source = collection.classes, collection.source
    if len(classes) > 1:
        return
    reasons = [f"{skipped.name}: {skipped.reason}" for skipped in (broken or collection.skipped)[:DETAILS_SHOWN]]
    if not classes:
        raise DataError(f"none of the {len(broken):,} images of {source} can be read; replace them", reasons)
    raise DataError(
        f"{source} has only one class with images that can be read, {classes[0]!r}; two are needed to tell apart",
        reasons,
    )


def _begins_like_a_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error


def _nearest_name(path: Path) -> str:
    try:
        beside = [sibling.name for sibling in path.absolute().parent.iterdir()]
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
