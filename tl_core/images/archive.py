"""Zip archives: judged before anything is written, then unpacked below the data folder, once.

Must not know: how the unpacked folder is arranged, or what an image is.
"""

import errno
import lzma
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from tl_core.errors import DataError
from tl_core.images.listing import is_clutter
from tl_core.images.unpacked import fingerprint, make_once, require_room
from tl_core.settings import Settings

ARCHIVE_EXTENSIONS = frozenset({".zip"})
# To be raised when what unpacking does to names or files changes.
_LAYOUT = "archive 1"
_ENCRYPTED_FLAG = 0x1
_UTF8_FLAG = 0x800
_COPIED_AT_ONCE = 1024 * 1024


def unpack(archive: Path, settings: Settings) -> Path:
    """The folder with the archive's files, unpacked now or earlier; hidden files and clutter are left out.

    Raises DataError, with nothing written, for a file that is no zip, for members that point outside, are links or
    encrypted, and for more files or bytes than the settings allow.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _accepted(archive, opened.infolist(), settings)

            def fill(folder: Path) -> None:
                require_room(settings.data_dir, sum(member.file_size for member, _ in members), settings.min_free_bytes)
                _extract(archive, opened, members, folder, settings)

            return make_once(settings.data_dir, archive.stem, [_LAYOUT, *fingerprint([archive])], fill)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{archive} is not a zip archive that can be read ({str(error) or 'cut off'}); "
            "make it anew, or give the folder itself"
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{archive} has a file or folder name that is too long for the disk; shorten it") from error
        raise DataError(f"{archive} cannot be opened: {error.strerror or error}") from error


def _accepted(
    archive: Path, members: Sequence[zipfile.ZipInfo], settings: Settings
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files to unpack and where to; every member is judged, also those that are then left out."""
    if len(members) > settings.max_files:
        raise DataError(
            f"{archive} has {len(members):,} entries; at most {settings.max_files:,} are taken (TL_MAX_FILES)"
        )
    declared = sum(member.file_size for member in members)
    if declared > settings.max_unpacked_bytes:
        raise _expands_too_far(archive, f"{declared:,}", settings)
    accepted = []
    for member in members:
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


def _extract(
    archive: Path,
    opened: zipfile.ZipFile,
    members: Sequence[tuple[zipfile.ZipInfo, PurePosixPath]],
    folder: Path,
    settings: Settings,
) -> None:
    left = settings.max_unpacked_bytes
    made = {folder}
    for member, place in members:
        target = folder.joinpath(*place.parts)
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        with opened.open(member) as packed, target.open("wb") as file:
            # Declared sizes can lie: what really comes out is counted too.
            while content := packed.read(_COPIED_AT_ONCE):
                left -= len(content)
                if left < 0:
                    raise _expands_too_far(archive, f"more than {settings.max_unpacked_bytes:,}", settings)
                file.write(content)


def _expands_too_far(archive: Path, found: str, settings: Settings) -> DataError:
    return DataError(
        f"{archive} expands to {found} bytes; "
        f"at most {settings.max_unpacked_bytes:,} are unpacked (TL_MAX_UNPACKED_BYTES)"
    )
