"""A draft: the collection that a person is putting together, as a folder that the core reads like any other data.

    <home>/drafts/<id>/  draft.json  labels.jsonl  pictures/  .uploads/  lock

Until the first edit a draft only names its source. Then it *adopts* it: the pictures are linked into the draft (copied
from another disk), and their labels and parts become `labels.jsonl`, a table that from then on says what the draft
holds. Originals are never changed. A picture that is taken out stays in `pictures/` until its room is needed, for a
training may be reading it. Every edit happens under a lock and replaces whole files, the table first, so that whoever
reads, also after a kill, finds the draft as it was before the edit or after it.

Must not know: who asks and how (the owner's name is only compared), what is shown, what is trained.
"""

import functools
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from tl_core.errors import DataError
from tl_core.files import UNFINISHED, existing_path, read_json, write_json, writing_to_home
from tl_core.images.collection import Picture, Skipped
from tl_core.images.labels import Labels, Row, class_name, read_rows, write_rows
from tl_core.images.listing import readable_name
from tl_core.images.samples import SAMPLE_PREFIX
from tl_core.images.store import Store, accept_container, bytes_held, copy_file, link_or_copy, size_of
from tl_core.settings import Settings
from tl_core.sources import CHECKING, Ticker, means_the_hub, open_data

if TYPE_CHECKING:
    from PIL import Image

# High enough that no artefact is learnt in the place of the object.
FRAME_QUALITY = 95
_ID = re.compile(r"draft-[0-9a-f]{16}")
# An edit takes a second or two with 50,000 pictures; adopting as many, some more.
_LOCK_PATIENCE = 60.0


@dataclass(frozen=True)
class Draft:
    """A draft folder. Making this value reads and writes nothing; methods that edit raise DataError and JobError."""

    dir: Path
    settings: Settings

    @property
    def id(self) -> str:
        return self.dir.name

    @property
    def version(self) -> int:
        """Raised by every edit."""
        return int(self._stored()["version"])

    @property
    def words(self) -> str:
        """DATA for a configuration: the source until the first edit, from then on this folder."""
        source = self._stored()["source"]
        return str(self.dir) if self._table.exists() or source is None else str(source)

    @property
    def state(self) -> Hashable:
        """Another value whenever the content may be another, also where a kill left the version behind the table."""
        table = self._table.stat() if self._table.exists() else None
        return self.id, self.words, self.version, table and (table.st_mtime_ns, table.st_size, table.st_ino)

    def owner(self) -> str:
        return str(self._stored()["owner"])

    def created_ns(self) -> int:
        """When the draft was made, in nanoseconds since the epoch."""
        return int(self._stored()["created_ns"])

    def rows(self) -> list[Row]:
        """The draft's own pictures; none until its source was adopted."""
        return self._read().rows

    def classes(self) -> dict[str, int]:
        """The draft's own classes in the order they came, with how many pictures each has, which may be none."""
        return self._read().counts()

    def require_classes(self) -> None:
        """Raise DataError while there is nothing to tell apart: no pictures, or those of a single class."""
        content = self._read()
        if content.source is None or self._table.exists():
            content.require_two()

    def pinned(self) -> str:
        """`words` that mean the present pictures also after further edits: for a run, which may wait or be resumed."""
        with self._locked():
            if not self._table.exists():
                return self.words
            mark = blake2b(self._table.read_bytes(), digest_size=4).hexdigest()
            kept = self.dir / f"images-{mark}.jsonl"
            if not kept.exists():
                link_or_copy(self._table, kept)
            return str(kept)

    def take_upload(self, files: Sequence[str | Path]) -> None:
        """Copy one zip archive or table into the draft; it becomes the source, in the place of an earlier one.

        Raises DataError for anything else, for more bytes than allowed, and where the draft holds pictures already.
        """
        file = accept_container(files)
        folder = self.dir / ".uploads" / secrets.token_hex(4)  # hidden: never listed with the pictures
        try:
            with writing_to_home(self.settings):
                upload = copy_file(file, folder, self._room()[1], self.settings)
            with self._locked():
                content = self._read()
                if content.rows:
                    raise DataError("this collection holds images already; begin a new one for the upload")
                content.source = str(upload)
                self._store_facts(content)
                self._table.unlink(missing_ok=True)
        except BaseException as failure:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(failure, DataError):
                raise DataError(f"{file.name}: {failure.message}", failure.details) from failure
            raise

    def add_class(self, name: str) -> str:
        """The class as it is spelled from now on; one that is there already stays as it is."""
        with self._editing() as content:
            return content.existing_or_new(name)

    def add_pictures(self, label: str, files: Sequence[str | Path], ticker: Ticker | None = None) -> dict[str, Any]:
        """Verify files, copy them in: {"added": number, "skipped": [{"file", "reason"}]}. The class is made if needed.

        Copies of a picture that the class has are skipped.
        """
        return self._add(label, [(readable_name(Path(file).name), Path(file)) for file in files], ticker)

    def add_frame(self, label: str, image: "Image.Image") -> dict[str, Any]:
        """Add a picture that is in memory, such as one of a webcam; as `add_pictures`."""
        if image.width * image.height > self.settings.max_pixels:
            raise DataError(f"too large: {image.width} × {image.height} pixels; at most {self.settings.max_pixels:,}")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "picture.jpg"
            try:
                image.convert("RGB").save(file, "JPEG", quality=FRAME_QUALITY)
            except (OSError, ValueError) as error:  # longer than JPEG allows, or of no pixels at all
                raise DataError(f"this picture cannot be kept: {error}") from error
            return self._add(label, [(file.name, file)], None)

    def remove_pictures(self, names: Collection[str]) -> int:
        """Take pictures out, by their names in the collection that `words` mean; how many there were."""
        with self._editing() as content:
            return content.remove(content.chosen(names))

    def move_pictures(self, names: Collection[str], label: str) -> int:
        """Give pictures another class, which is made if needed; how many there were."""
        with self._editing() as content:
            return content.move(content.chosen(names), content.existing_or_new(label))

    def rename_class(self, old: str, new: str) -> str:
        """Rename a class, or merge it into the one that is called so already; the class as it is spelled now."""
        with self._editing() as content:
            return content.rename(content.existing(old), class_name(new))

    def remove_class(self, name: str) -> int:
        """Take a class out with its pictures; how many there were."""
        with self._editing() as content:
            gone = content.existing(name)
            content.classes.remove(gone)
            return content.remove({number for number, row in enumerate(content.rows) if row.label == gone})

    def discard(self) -> None:
        """Remove the draft with all that lies in it: not one that a run is still to read. Twice is as good as once."""
        with self._locked():
            (self.dir / "draft.json").unlink(missing_ok=True)  # an edit that waits for the lock finds no draft any more
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def _table(self) -> Path:
        return self.dir / "labels.jsonl"

    @property
    def _store(self) -> Store:
        return Store(self.dir / "pictures", self.settings)

    def _stored(self) -> dict[str, Any]:
        stored = read_json(self.dir / "draft.json")
        if stored is None:
            raise _missing(self.id)
        return stored

    def _read(self) -> Labels:
        stored = self._stored()
        rows = read_rows(self._table)
        # A kill between table and draft.json leaves classes of the one that the other does not name.
        classes = dict.fromkeys([*stored["classes"], *(row.label for row in rows)])
        return Labels(stored["source"], list(classes), rows)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = filelock.FileLock(self.dir / "lock")
        try:
            lock.acquire(timeout=_LOCK_PATIENCE)
        except filelock.Timeout as error:
            raise DataError("this collection is being changed by somebody else right now; try again") from error
        try:
            with writing_to_home(self.settings):
                yield
        finally:
            lock.release()

    @contextmanager
    def _editing(self) -> Iterator[Labels]:
        """The content to change, the source adopted; it is stored where nothing was raised."""
        adopted, source = None, self._stored()["source"]
        if source is not None and not self._table.exists():
            adopted = open_data(source, self.settings).pictures  # before locking: for new data this can take minutes
        with self._locked():
            for left in self.dir.glob(f".*{UNFINISHED}"):  # by an edit that was killed
                left.unlink(missing_ok=True)
            content = self._read()
            if content.source is not None and not self._table.exists():
                if adopted is None or content.source != source:
                    raise DataError("another upload came meanwhile; look at it and try again")
                self._adopt(adopted, content)
            yield content
            if content.rows or content.source is not None or self._table.exists():
                write_rows(self._table, content.rows)
            self._store_facts(content)

    def _adopt(self, pictures: Sequence[Picture], content: Labels) -> None:
        files, room = self._room()
        if len(pictures) > files:
            raise self._too_many()
        content.adopt(pictures, map(self._name_of, self._store.link(pictures, room)))

    def _add(self, label: str, files: Sequence[tuple[str, Path]], ticker: Ticker | None) -> dict[str, Any]:
        if not isinstance(label, str) or self._read().known(label) is None:
            class_name(label)  # refuse it before anything is copied
        room = self._room()
        if sum(size_of(path) for _, path in files) > room[1] or len(files) > room[0]:
            self._sweep()
            room = self._room()
        if len(files) > room[0]:
            raise self._too_many()
        with writing_to_home(self.settings):
            pictures, skipped = self._store.put(files, room[1], ticker and functools.partial(ticker, CHECKING))
        copies: list[Picture] = []
        if pictures:
            kept = {self._name_of(picture.path): picture for picture in pictures}
            with self._editing() as content:
                name = content.existing_or_new(label)
                copies = [kept[file] for file in content.add(name, kept)]
            for picture in copies:
                skipped.append(Skipped(picture.name, f"the class {name!r} has this image already"))
                picture.path.unlink()
        reasons = [{"file": left.name, "reason": left.reason} for left in skipped]
        return {"added": len(pictures) - len(copies), "skipped": reasons}

    def _name_of(self, path: Path) -> str:
        return path.relative_to(self.dir).as_posix()

    def _room(self) -> tuple[int, int]:
        """How many files and bytes may still be added."""
        files, held = bytes_held(self.dir)
        return self.settings.max_files - files, self.settings.max_draft_bytes - held

    def _sweep(self) -> None:
        """Give up pictures that were taken out and that no pinned table names either."""
        with self._locked():
            tables = [self._table, *self.dir.glob("images-*.jsonl")]
            self._store.sweep({Path(row.file).name for table in tables for row in read_rows(table)})

    def _too_many(self) -> DataError:
        allowed = self.settings.max_files
        return DataError(f"a collection may hold {allowed:,} files (set TL_MAX_FILES to allow more); begin a new one")

    def _store_facts(self, content: Labels) -> None:
        stored = self._stored()
        changed = {"source": content.source, "classes": content.classes, "version": stored["version"] + 1}
        write_json(self.dir / "draft.json", {**stored, **changed})


def create_draft(settings: Settings, owner: str, source: str | None = None) -> Draft:
    """Make a draft: empty, or of the data that `source` means. Raises DataError, JobError.

    In shared mode a source is a sample or a Hub id: nobody names files of a machine that is not theirs.
    """
    source = source.strip() if source else None
    path = existing_path(source) if source else None
    remote = not source or source.startswith(SAMPLE_PREFIX) or means_the_hub(source)
    if settings.shared and not remote:
        raise DataError(f"{source!r} is neither a sample nor a dataset on the Hub, which looks like owner/name")
    draft = Draft(_drafts_dir(settings) / f"draft-{secrets.token_hex(8)}", settings)
    stored = {
        "owner": owner,
        "created_ns": time.time_ns(),
        "source": str(path.absolute()) if path else source or None,
        "version": 1,
        "classes": [],
    }
    with writing_to_home(settings):
        draft.dir.mkdir(parents=True)
        write_json(draft.dir / "draft.json", stored)
    return draft


def find_draft(draft_id: str, settings: Settings, owner: str) -> Draft:
    """Raises DataError, the same for a draft of somebody else's and for one that is not there."""
    if isinstance(draft_id, str) and _ID.fullmatch(draft_id):
        draft = Draft(_drafts_dir(settings) / draft_id, settings)
        if (read_json(draft.dir / "draft.json") or {}).get("owner") == owner:
            return draft
    raise _missing(draft_id)


def list_drafts(settings: Settings, owner: str) -> list[Draft]:
    """The drafts of an owner, oldest first."""
    found = {
        Draft(place.parent, settings): read_json(place) for place in _drafts_dir(settings).glob("draft-*/draft.json")
    }
    owned = {draft: said["created_ns"] for draft, said in found.items() if said and said.get("owner") == owner}
    return sorted(owned, key=lambda draft: (owned[draft], draft.id))


def _drafts_dir(settings: Settings) -> Path:
    return settings.home / "drafts"


def _missing(draft_id: object) -> DataError:
    return DataError(f"there is no collection {str(draft_id)[:40]!r} of yours; begin a new one")
