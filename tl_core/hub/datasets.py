"""A dataset from the Hub as something on disk: parquet shards named by split, or its images or zip as they are.

Must not know: how pictures and labels are read from them.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from tl_core.errors import DataError
from tl_core.hub.repository import Repository, RevisionMissing, Unreachable, is_hub_id
from tl_core.settings import Settings

# Where the Hub keeps a parquet copy of most datasets (https://huggingface.co/docs/dataset-viewer/parquet).
CONVERTED = "refs/convert/parquet"
# What the image side reads, which this package must not import: a test holds the two together.
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
TABLE_SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson", ".parquet", ".tsv"})
# "train-00000-of-00002-6b3f" -> "train", "test_1" -> "test", "0000" -> ""
_SHARD_NUMBER = re.compile(r"[-_.]?\d*(-of-\d+(-[0-9a-f]+)?)?$")
# The Hub copies the first 5 GB of a larger dataset and says so in the folder's name.
_CUT_OFF = "partial-"

log = logging.getLogger(__name__)

Shards = dict[str, dict[str, list[str]]]  # {configuration: {split: files in order}}


@dataclass(frozen=True)
class FetchedDataset:
    """A folder of parquet shards (`train-00000.parquet` …), a folder of images, or a zip; the commit it is; and what
    was decided on the person's behalf, in sentences."""

    path: Path
    id: str
    revision: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    repository: Repository
    files: dict[str, int]  # name: bytes
    shards: Shards
    only_kept: bool  # the Hub cannot be asked: take the files from the cache or not at all


def fetch_dataset(dataset_id: str, settings: Settings, revision: str | None = None) -> FetchedDataset:
    """Download a dataset's parquet shards (its own, else the Hub's copy), else its images or zip; or find them in the
    Hub client's cache.

    Of several configurations the one called default is taken, else the first. Raises HubError (offline, unknown, gated,
    refused) and DataError (nothing usable, or more bytes than `settings.max_unpacked_bytes`).
    """
    if not is_hub_id(dataset_id):
        raise DataError(f"{dataset_id!r} cannot be a dataset on the Hub: an id looks like owner/name")
    places = [Repository("dataset", dataset_id, revision)]
    if revision is None:
        places.append(Repository("dataset", dataset_id, CONVERTED))
    try:
        found = _look(places, lambda place: _ask_for_files(place, settings))
    except Unreachable as failure:
        kept = _look(places, Repository.kept_files, only_kept=True)
        if kept is None:
            raise
        try:
            fetched = _fetch(kept, settings)
        except Unreachable:
            raise failure from None
        if not settings.offline:
            log.warning("%s; using the copy of %s downloaded earlier", failure.why, dataset_id)
        return fetched
    assert found is not None, "the main branch exists or an error was raised"
    return _fetch(found, settings)


def _look(
    places: list[Repository], list_files: Callable[[Repository], dict[str, int] | None], only_kept: bool = False
) -> _Found | None:
    """The first place with parquet shards, else the first there is."""
    first = None
    for place in places:
        files = list_files(place)
        if files is not None:
            found = _Found(place, files, _shards(files), only_kept)
            if found.shards:
                return found
            first = first or found
    return first


def _ask_for_files(place: Repository, settings: Settings) -> dict[str, int] | None:
    try:
        return place.pinned(settings).files()
    except RevisionMissing:
        if place.revision == CONVERTED:
            return None
        raise


def _shards(names: dict[str, int]) -> Shards:
    """Parquet files by configuration and split, in the layouts in use: `data/train-00000-of-00002.parquet`,
    `CONFIG/test.parquet`, and the Hub's own `CONFIG/SPLIT/0000.parquet`."""
    found: Shards = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix != ".parquet" or path.stem == "metadata":  # a table beside image files
            continue
        folders = list(path.parts[:-1])
        split = _SHARD_NUMBER.sub("", path.stem) or (folders.pop() if folders else "train")
        config = "/".join(folders) if folders not in ([], ["data"]) else "default"
        found.setdefault(config, {}).setdefault(split, []).append(name)
    return found


def _fetch(found: _Found, settings: Settings) -> FetchedDataset:
    return _fetch_shards(found, settings) if found.shards else _fetch_images(found, settings)


def _fetch_shards(found: _Found, settings: Settings) -> FetchedDataset:
    repository, notes = found.repository, []
    config = "default" if "default" in found.shards else next(iter(found.shards))
    splits = found.shards[config]
    if len(found.shards) > 1:
        others = ", ".join(name for name in found.shards if name != config)
        notes.append(f"{repository.id} has several configurations: {config} was taken, {others} left out")
    if any(split.startswith(_CUT_OFF) for split in splits):
        notes.append(f"the Hub's parquet copy of {repository.id} ends after some gigabytes; the rest is left out")
    snapshot = _download(found, [name for names in splits.values() for name in names], settings)
    key = blake2b(f"{snapshot.name}/{config}".encode(), digest_size=8).hexdigest()
    folder = settings.data_dir / f"hub-{repository.id.replace('/', '--')}-{key}"
    with repository.storing():
        folder.mkdir(parents=True, exist_ok=True)
        for split, names in splits.items():
            for number, name in enumerate(names):
                _stand_in(folder / f"{split.removeprefix(_CUT_OFF)}-{number:05d}.parquet", snapshot / name)
    return FetchedDataset(folder, repository.id, snapshot.name, tuple(notes))


def _fetch_images(found: _Found, settings: Settings) -> FetchedDataset:
    repository = found.repository
    suffixes = {name: PurePosixPath(name).suffix.lower() for name in found.files}
    archives = [name for name, suffix in suffixes.items() if suffix == ".zip"]
    images = [name for name, suffix in suffixes.items() if suffix in IMAGE_SUFFIXES]
    if not archives and not images:
        raise DataError(
            f"{repository} holds neither parquet files nor images nor a zip, and the Hub keeps no parquet copy of it; "
            "download it and give the folder of its images"
        )
    tables = [name for name, suffix in suffixes.items() if suffix in TABLE_SUFFIXES]
    snapshot = _download(found, [*archives, *images, *tables], settings)
    only_a_zip = len(archives) == 1 and not images
    return FetchedDataset(snapshot / archives[0] if only_a_zip else snapshot, repository.id, snapshot.name)


def _download(found: _Found, names: list[str], settings: Settings) -> Path:
    total, allowed = sum(found.files[name] for name in names), settings.max_unpacked_bytes
    if total > allowed:
        raise DataError(
            f"{found.repository} has {total / 1e9:,.2f} GB, more than the {allowed / 1e9:,.2f} GB allowed; set "
            "TL_MAX_UNPACKED_BYTES to allow more"
        )
    return found.repository.download(names, from_cache=found.only_kept)


def _stand_in(target: Path, source: Path) -> None:
    """Make `target` stand for a file of the cache: a link where the system allows one, else a copy."""
    if target.is_file():
        return
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        fresh.symlink_to(source)
    except OSError:  # Windows allows links to administrators and developers only
        shutil.copyfile(source, fresh)
    fresh.replace(target)
