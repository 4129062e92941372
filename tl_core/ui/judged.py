"""The pictures that a run was judged on: which are behind a figure, and small copies of them to look at.

Only files that the run's own report names are opened, never one that a browser names. Must not know components.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from tl_core.errors import DataError
from tl_core.images.thumbnails import thumbnail
from tl_core.images.wording import count, name_some
from tl_core.settings import Settings
from tl_core.ui.markup import data_uri, paragraph, text

Copies = Sequence[tuple["Judged", Image.Image]]

CARD_SIDE = 160  # pixels
_CARD_QUALITY = 80


@dataclass(frozen=True)
class Judged:
    """A test picture: its name in the collection, where it lay, its class, the answer and that one's probability."""

    file: str
    path: Path
    label: str
    predicted: str
    score: float

    @property
    def right(self) -> bool:
        return self.label == self.predicted

    @property
    def words(self) -> str:
        verdict = "recognised" if self.right else f"taken for {self.predicted}"
        return f"{self.score:.1%}: {self.label} {verdict}"


def judged_pictures(report: dict[str, Any]) -> list[Judged]:
    return [
        Judged(row["file"], Path(row["path"]), row["label"], row["predicted"], row["score"])
        for row in report["predictions"]
    ]


def behind_cell(pictures: Iterable[Judged], truth: str, answer: str) -> list[Judged]:
    """The pictures of one cell of the confusion matrix, the surest first."""
    chosen = [each for each in pictures if each.label == truth and each.predicted == answer]
    return sorted(chosen, key=lambda each: -each.score)


def surest_mistakes(pictures: Iterable[Judged]) -> list[Judged]:
    return sorted((each for each in pictures if not each.right), key=lambda each: -each.score)


def one_of_each_class(pictures: Iterable[Judged]) -> list[Judged]:
    """The first picture of each class that is still on the disk, in the order of the report."""
    found: dict[str, Judged] = {}
    for each in pictures:
        if each.label not in found and each.path.is_file():
            found[each.label] = each
    return list(found.values())


def small_copies(pictures: Sequence[Judged], side: int, settings: Settings) -> tuple[Copies, list[Judged]]:
    """The pictures with copies of at most `side` × `side` pixels, and those that cannot be read any more."""
    copies, missing = [], []
    for each in pictures:
        try:
            copies.append((each, thumbnail(each.path, _fingerprint(each.path), side, settings)))
        except (OSError, DataError):
            missing.append(each)
    return copies, missing


def describe_missing(missing: Sequence[Judged]) -> str:
    """A sentence about pictures that cannot be shown; nothing where all can."""
    if not missing:
        return ""
    number = count(len(missing), "picture cannot", "pictures cannot")
    return f"{number} be shown, moved or deleted since the training: {name_some([each.file for each in missing])}."


def labelled_pictures(copies: Copies) -> str:
    """Each picture with the class that it is."""
    return _cards((each, image, f"labelled {_class_name(each.label)}") for each, image in copies)


def mistaken_pictures(copies: Copies) -> str:
    """Each picture with what it is, what it was taken for and how sure the model was."""
    return _cards(
        (each, image, f"{_class_name(each.label)} taken for {_class_name(each.predicted)}, {each.score:.1%} sure")
        for each, image in copies
    )


def example_buttons(copies: Copies) -> str:
    """A button with data-pick NUMBER for each picture, named after its class."""
    buttons = "".join(
        f'<li><button type="button" class="tl-card" data-pick="{number}">'
        f'<img src="{data_uri(image, _CARD_QUALITY)}" alt="">{_class_name(each.label)}</button></li>'
        for number, (each, image) in enumerate(copies)
    )
    return f'<ul class="tl-gallery tl-examples" aria-label="A test picture of each class">{buttons}</ul>'


def mistakes_shown(pictures: Sequence[Judged], most: int, settings: Settings) -> str:
    """Markup of the mistakes the model was surest of, at most so many."""
    wrong = surest_mistakes(pictures)
    if not wrong:
        return paragraph("It made no mistake on these pictures.")
    copies, missing = small_copies(wrong[:most], CARD_SIDE, settings)
    number = count(len(wrong), "mistake", "mistakes")
    said = (
        f"{number}, the surest first. Look for pictures with a wrong label, and for some that nobody could tell apart."
    )
    return paragraph(said, "tl-quiet") + mistaken_pictures(copies) + paragraph(describe_missing(missing), "tl-quiet")


def _cards(pictures: Iterable[tuple[Judged, Image.Image, str]]) -> str:
    """`pictures` with markup to stand below them."""
    cards = "".join(
        f'<li class="tl-judged"><img src="{data_uri(image, _CARD_QUALITY)}" alt="{text(each.file)}">'
        f"<span>{below}</span></li>"
        for each, image, below in pictures
    )
    return f'<ul class="tl-gallery">{cards}</ul>' if cards else ""


def _class_name(label: str) -> str:
    """Set apart from what stands around it: names may be written from right to left."""
    return f"<b><bdi>{text(label)}</bdi></b>"


def _fingerprint(path: Path) -> str:
    """Names a file as it is now, for the cache of small copies. Raises OSError where there is none."""
    about = path.stat()
    return blake2b(
        f"{path}\0{about.st_mtime_ns}\0{about.st_size}".encode(errors="surrogatepass"), digest_size=16
    ).hexdigest()
