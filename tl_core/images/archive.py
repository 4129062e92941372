"""Zip archives: judged before anything is written, then unpacked below the data folder, once.

Where an archive or a folder holds archives instead of images (train.zip, test.zip), these are unpacked too, each into a
folder of its name, under the same limits; what is archived still deeper is left alone.
Must not know: how the unpacked folder is arranged, or what is in an image.
"""

import contextlib
import errno
import lzma
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from tl_core.errors import DataError
from tl_core.images.listing import Folder, Kind, is_clutter, kind_of
from tl_core.images.unpacked import Unpacking, explained_storage_errors, fingerprint, make_once, require_room
from tl_core.images.wording import count
from tl_core.settings import Settings

# To be raised when what unpacking does to names or files changes.
_LAYOUT = "archive 2"
_ENCRYPTED_FLAG = 0x1
_UTF8_FLAG = 0x800
_COPIED_AT_ONCE = 1024 * 1024
_USED: frozenset[Kind] = frozenset({"image", "unknown", "table"})
_USED_OR_NESTED: frozenset[Kind] = _USED.union({"archive"})

Members = list[tuple[zipfile.ZipInfo, PurePosixPath]]


def unpack(archive: Path, settings: Settings, unpacking: Unpacking | None = None) -> Path:
    """The folder with the archive's images and tables, unpacked now or earlier; clutter is left out, and an empty file
    stands for anything else.

    Raises DataError, with nothing written, for a file that is no zip, for members that point outside, are links or
    encrypted, for more files or bytes than the settings allow, and for an archive without images.
    """
    job = _Job(archive, settings, unpacking or Unpacking())
    with _explained(archive), zipfile.ZipFile(archive) as opened:
        members = job.judge(archive, opened)
        kinds = {kind_of(place.name) for _, place in members}
        nested = "archive" in kinds and "image" not in kinds
        if not nested and not kinds & _USED:
            number = count(len(members), "other file", "other files")
            found = f"only {number}, such as {members[0][1]}" if members else "nothing"
            raise DataError(f"{archive} holds no images but {found}; nothing was unpacked")
        wanted = _USED_OR_NESTED if nested else _USED
        job.require_bytes(members, wanted)

        def fill(folder: Path) -> None:
            job.extract(opened, members, folder, wanted)
            if nested:
                for inner in sorted(folder.rglob("*")):
                    if kind_of(inner.name) == "archive" and inner.is_file():
                        job.expand(inner, inner)
                        inner.unlink()

        return make_once(settings.data_dir, archive.stem, [_LAYOUT, *fingerprint([archive])], fill, job.unpacking)


def unpack_archives_of(tree: Folder, settings: Settings, unpacking: Unpacking) -> Path:
    """A folder like `tree`, with its tables, and with what is in its archives in the place of these. As `unpack`."""
    archives = [folder.path / name for folder in tree.below() for name in folder.archives]
    tables = [folder.path / name for folder in tree.below() for name in folder.tables]
    job = _Job(tree.path, settings, unpacking)

    def fill(target: Path) -> None:
        for source in tables:
            place = target / source.relative_to(tree.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        for source in archives:
            job.expand(source, target / source.relative_to(tree.path))

    with _explained(tree.path):
        identity = [_LAYOUT, *fingerprint([*archives, *tables])]
        return make_once(settings.data_dir, tree.name, identity, fill, unpacking)


@contextlib.contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    # A name that is marked as UTF-8 and is not ends in a UnicodeDecodeError.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise DataError(
            f"{archive} is not a zip archive that can be read ({str(error) or 'cut off'}); "
            "make it anew, or give the folder itself"
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{archive} has a file or folder name that is too long for the disk; shorten it") from error
        raise DataError(f"{archive} cannot be opened: {error.strerror or error}") from error


class _Job:
    """What one request has unpacked so far, from `source` and the archives inside it together."""

    def __init__(self, source: Path, settings: Settings, unpacking: Unpacking) -> None:
        self.source, self.settings, self.unpacking = source, settings, unpacking
        self._entries = self._declared = self._written = 0

    def judge(self, archive: Path, opened: zipfile.ZipFile) -> Members:
        """The files of an archive and where to put them; every member is judged, also those that are left out."""
        self._entries += len(opened.infolist())
        if self._entries > self.settings.max_files:
            raise DataError(
                f"{self.source} has {self._entries:,} entries; at most {self.settings.max_files:,} are taken "
                "(set TL_MAX_FILES to allow more)"
            )
        accepted: Members = []
        for member in opened.infolist():
            name = _true_name(member).replace("\\", "/")
            place = PurePosixPath(name)
            problem = _problem(member, name, place)
            if problem:
                raise DataError(f"{archive} is refused: its member {name!r} {problem}; nothing was unpacked")
            if not name.endswith("/") and not any(is_clutter(part) for part in place.parts):
                accepted.append((member, place))
        files = {place for _, place in accepted}
        for place in files:
            if not files.isdisjoint(place.parents):
                raise DataError(f"{archive} is refused: one of the folders of {str(place)!r} is also a file")
        return accepted

    def require_bytes(self, members: Members, wanted: frozenset[Kind]) -> None:
        """Raise DataError where the files to write are declared larger than allowed."""
        self._declared += sum(member.file_size for member, place in members if kind_of(place.name) in wanted)
        if self._declared > self.settings.max_unpacked_bytes:
            raise self._expands_too_far(f"{self._declared:,}")

    def expand(self, archive: Path, place: Path) -> None:
        """Unpack an archive into the folder that `place` names without its ending."""
        storage_errors = explained_storage_errors(self.settings.home, filling=place.parent)
        with _explained(archive), storage_errors, zipfile.ZipFile(archive) as opened:
            members = self.judge(archive, opened)
            self.require_bytes(members, _USED)
            # train.zip often holds a folder train: that one is not wrapped in another.
            wrapped = all(len(inside.parts) > 1 and inside.parts[0] == place.stem for _, inside in members)
            self.extract(opened, members, place.parent if wrapped else place.with_suffix(""), _USED)

    def extract(
        self,
        opened: zipfile.ZipFile,
        members: Sequence[tuple[zipfile.ZipInfo, PurePosixPath]],
        folder: Path,
        wanted: frozenset[Kind],
    ) -> None:
        require_room(self.settings.data_dir, self._declared - self._written, self.settings.min_free_bytes)
        made: set[Path] = set()
        for member, place in members:
            target = folder.joinpath(*place.parts)
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            if kind_of(place.name) not in wanted:
                target.touch()  # takes no room, and is listed as left out
                continue
            with opened.open(member) as packed, target.open("wb") as file:
                # Declared sizes can lie: what really comes out is counted too.
                while content := packed.read(_COPIED_AT_ONCE):
                    self._written += len(content)
                    if self._written > self.settings.max_unpacked_bytes:
                        raise self._expands_too_far(f"more than {self.settings.max_unpacked_bytes:,}")
                    file.write(content)
            self.unpacking.tell(self._written, self._declared)

    def _expands_too_far(self, found: str) -> DataError:
        return DataError(
            f"{self.source} expands to {found} bytes; at most {self.settings.max_unpacked_bytes:,} are unpacked "
            "(set TL_MAX_UNPACKED_BYTES to allow more)"
        )


def _problem(member: zipfile.ZipInfo, name: str, place: PurePosixPath) -> str:
    if place.is_absolute() or PureWindowsPath(name).drive:
        return "has an absolute path"
    if ".." in place.parts:
        return "points outside the archive"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is neither a file nor a folder"
    if member.flag_bits & _ENCRYPTED_FLAG:
        return "is encrypted"
    return ""


def _true_name(member: zipfile.ZipInfo) -> str:
    """The member's name; one written in UTF-8 without saying so, which `zipfile` reads as cp437, is read again."""
    if member.flag_bits & _UTF8_FLAG or member.filename.isascii():
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename
