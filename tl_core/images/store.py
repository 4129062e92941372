"""Pictures kept in one folder under names made from their content: copied in and verified, or linked from elsewhere.

A name is `<digest>-<mark><ending>`: it says nothing that a stranger wrote, and one content can be kept several times.
Must not know: classes, whose pictures these are.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from tl_core.errors import DataError
from tl_core.files import UNFINISHED
from tl_core.images.collection import Listed, Picture, Skipped
from tl_core.images.decode import readable_extensions
from tl_core.images.listing import ARCHIVE_EXTENSIONS, kind_of
from tl_core.images.scan import verify
from tl_core.images.table_files import TABLE_EXTENSIONS
from tl_core.images.unpacked import require_room
from tl_core.images.verified import Facts, Stamp, VerifiedFiles
from tl_core.images.wording import count
from tl_core.settings import Settings

_COPIED_AT_ONCE = 1024**2
# The digest is that of `Picture.digest`.
_DIGEST_BYTES = 16
_MARK_BYTES = 4
_NAME_BYTES = 80
# A picture that nobody names may be one that is being added: it is spared for so long after it was put here.
_SPARED_SECONDS = 3600
# What a file system says that knows no links, or none to another disk, or not so many to one file.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Store:
    """The pictures below `folder`. Making this value reads and writes nothing."""

    folder: Path
    settings: Settings

    def put(
        self, files: Sequence[tuple[str, Path]], room: int, progress: Progress | None = None
    ) -> tuple[list[Picture], list[Skipped]]:
        """Copy (shown name, file) in and verify the copies: those that are pictures, and the others with the reason.

        At most `room` bytes are taken, of one file `max_upload_bytes`. The pictures' `name` is the shown one, their
        label empty. Raises JobError or OSError where the home folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        copies: list[Listed] = []
        skipped: list[Skipped] = []
        for name, file in files:
            try:
                copy, size = self._copy(file, name, room)
            except DataError as refusal:
                skipped.append(Skipped(name, refusal.message))
            else:
                room -= size
                copies.append(Listed(copy, name, ""))
        pictures, broken, _ = verify(copies, self.settings, progress)
        kept = {picture.path for picture in pictures}
        for listed in copies:
            if listed.path not in kept:
                listed.path.unlink()
        return pictures, skipped + broken

    def link(self, pictures: Sequence[Picture], room: int) -> list[Path]:
        """Each picture under a name of the store, without taking room where the disk allows that; `room` as for `put`.

        What verification found is remembered for the new names. Calling it again for the same pictures makes nothing
        twice. Raises DataError where the copies that have to be made do not fit.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        placed: list[Path] = []
        known: list[tuple[Path, Stamp, Facts]] = []
        for number, picture in enumerate(pictures):
            target = self.folder / f"{picture.digest}-{number}{_ending(picture.path.name)}"
            if not target.exists() and not link_or_copy(picture.path, target):
                room -= target.stat().st_size
                if room < 0:
                    raise DataError(
                        f"the images do not fit: a collection may take {self.settings.max_draft_bytes:,} bytes "
                        "(set TL_MAX_DRAFT_BYTES to allow more)"
                    )
            found = target.stat()
            facts = Facts(**{name: getattr(picture, name) for name in Facts._fields})
            known.append((target, (found.st_size, found.st_mtime_ns), facts))
            placed.append(target)
        with VerifiedFiles(self.settings.cache_dir) as cache:
            cache.remember(known)
        return placed

    def sweep(self, named: Container[str]) -> None:
        """Delete what is kept under none of these names, unless it came just now."""
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name not in named and time.time() - entry.stat().st_ctime > _SPARED_SECONDS:
                    os.unlink(entry.path)

    def _copy(self, source: Path, name: str, room: int) -> tuple[Path, int]:
        """A copy and its bytes. Raises DataError with a short reason."""
        partial = self.folder / f".{secrets.token_hex(_MARK_BYTES)}{UNFINISHED}"
        try:
            digest, size = _copied(source, partial, room, self.settings)
            target = self.folder / f"{digest}-{secrets.token_hex(_MARK_BYTES)}{_ending(name)}"
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return target, size


def accept_container(files: Sequence[str | Path]) -> Path:
    """The one zip archive or table that was uploaded. Raises DataError that says what was instead."""
    paths = [Path(file) for file in files]
    kinds = [kind_of(path.name) for path in paths]
    if kinds and set(kinds) == {"image"}:
        raise DataError(
            f"{count(len(paths), 'image has', 'images have')} no class: name a class and add them to it, or zip "
            "folders named after the classes"
        )
    if len(paths) != 1:
        raise DataError(f"{count(len(paths), 'file was', 'files were')} given; one zip archive or table is taken")
    if kinds[0] not in ("archive", "table"):
        endings = ", ".join(sorted(ARCHIVE_EXTENSIONS | TABLE_EXTENSIONS))
        raise DataError(f"{paths[0].name} is neither a zip archive nor a table ({endings}); zip the folders of images")
    return paths[0]


def copy_file(source: Path, folder: Path, room: int, settings: Settings) -> Path:
    """Copy an uploaded file into `folder` under its name, made harmless; `room` and errors as for `Store.put`."""
    folder.mkdir(parents=True)
    target = folder / _harmless(source.name)
    _copied(source, target, room, settings)
    return target


def digest_of(name: str) -> str:
    """The digest of the picture that is kept under `name`."""
    return name.rpartition("/")[2].partition("-")[0]


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name, through links to it; True where that took no room, False where it is a copy."""
    # A link to a link would break when the first one moves: the Hub's cache is made of relative ones.
    source = Path(os.path.realpath(source)) if source.is_symlink() else source
    try:
        os.link(source, target)
        return True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    partial = target.with_name(f".{target.name}{UNFINISHED}")
    shutil.copy2(source, partial)
    os.replace(partial, target)
    return False


def size_of(path: Path) -> int:
    """In bytes; 0 for what cannot be opened, which is told when it is to be copied."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return 0


def bytes_held(folder: Path) -> tuple[int, int]:
    """(files, bytes) below a folder; a file that also has a name elsewhere takes no bytes here."""
    files = size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # another process ends its edit
                found = os.stat(os.path.join(place, name))
                files += 1
                size += found.st_size if found.st_nlink == 1 else 0
    return files, size


def _ending(name: str) -> str:
    ending = os.path.splitext(name)[1].lower()
    return ending if ending in readable_extensions() else ""


def _copied(source: Path, target: Path, room: int, settings: Settings) -> tuple[str, int]:
    """Copy an uploaded file; its digest and bytes. Raises DataError with a short reason, with nothing copied."""
    with _opened(source, settings) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > room:
            raise DataError(
                f"the collection is full: it has {max(0, room):,} bytes left of {settings.max_draft_bytes:,}, and this "
                f"file has {size:,} (set TL_MAX_DRAFT_BYTES to allow more)"
            )
        require_room(target.parent, size, settings.min_free_bytes)
        digest = blake2b(digest_size=_DIGEST_BYTES)
        with target.open("wb") as copy:
            while piece := stream.read(_COPIED_AT_ONCE):
                digest.update(piece)
                copy.write(piece)
    return digest.hexdigest(), size


def _opened(path: Path, settings: Settings) -> BinaryIO:
    """An uploaded file, opened. Raises DataError for what is no file, cannot be read, or is larger than allowed."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
            raise DataError("not a file")
        if found.st_size > settings.max_upload_bytes:
            raise DataError(
                f"too large: {found.st_size:,} bytes; a file may have {settings.max_upload_bytes:,} "
                "(TL_MAX_UPLOAD_BYTES)"
            )
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"cannot be opened: {reason or error}") from error


def _harmless(name: str) -> str:
    """A stranger's file name as one that is harmless on every disk, with its ending; letters of every language stay."""
    stem, ending = os.path.splitext(re.sub(r"[^\w.-]+", "-", name.replace("\\", "/").rpartition("/")[2]))
    short = stem.encode()[:_NAME_BYTES].decode(errors="ignore").strip(".-") or "data"
    return short + (ending if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", ending) else "")
