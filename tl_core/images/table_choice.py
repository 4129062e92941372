"""Which files of a folder are the table that labels its images, and where class folders count more than a table.

Must not know: which columns are read, or what becomes of the rows.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from tl_core.errors import DataError
from tl_core.images.columns import named_label
from tl_core.images.listing import Folder, class_folders, split_folders, split_named, unwrapped
from tl_core.images.table_files import PARQUET_TABLES, open_table

# File names, without ending, of the text table that is meant when there are others beside it.
_USUAL_STEMS = ("metadata", "labels", "label", "annotations")


@dataclass(frozen=True)
class Part:
    """One file of a table, and the split that its name or folder gives to its rows."""

    path: Path
    split: str | None = None


def table_parts(tree: Folder, wanted: bool = False) -> list[Part]:
    """The files of the table that labels a folder's images or holds them; empty where class folders do that.

    Folders are not classes, although there are several, where one table has a column of labels and names most of their
    images. `wanted` says that the person means a table in any case. Raises DataError when several tables would do.
    """
    chain = unwrapped(tree)
    if not tree.table_count:
        return []
    if not wanted and split_folders(chain[-1]):
        return []
    if not wanted and len(class_folders(chain[-1])) > 1:
        paths = [folder.path / name for folder in [*chain, *chain[-1].folders] for name in folder.tables]
        labelling = [path for path in paths if _labels_most_images(path, tree)]
        usual = [path for path in labelling if path.stem.casefold() in _USUAL_STEMS]
        chosen = usual if len(labelling) > 1 else labelling
        return [Part(chosen[0])] if len(chosen) == 1 else []
    for folder in chain:
        if folder.tables:
            return _parts_of(folder, tree.path)
    # Each split has its own table, or its own shards: train/metadata.csv, default/train/0000.parquet.
    return [part for folder in chain[-1].folders for part in (_parts_of(folder, tree.path) if folder.tables else [])]


def files_by_name(tree: Folder) -> dict[str, Path]:
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


def _labels_most_images(path: Path, tree: Folder) -> bool:
    try:
        table = open_table(path, within=tree.path)
        if named_label(table) is None:
            return False
        by_path = {str(folder.path / name): folder.path / name for folder in tree.below() for name in folder.images}
        by_name = files_by_name(tree)
        for column in [name for name, kind in table.kinds.items() if kind == "text"]:
            values = {str(value).replace("\\", "/") for (value,) in table.rows([column]) if value is not None}
            named = {by_path.get(str(path.parent / value)) or by_name.get(PurePath(value).name) for value in values}
            if 2 * len(named - {None}) > tree.image_count:
                return True
    except DataError:  # beside class folders a table that cannot be read is a file like any other
        return False
    return False


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


def _split_of(inside: Path) -> str | None:
    """The split named by the nearest folder, else by the first word of the file name that is one."""
    for folder in reversed(inside.parts[:-1]):
        if split := split_named(folder):
            return split
    for word in re.split(r"[^a-z]+", inside.stem.lower()):
        if split := split_named(word):
            return split
    return None
