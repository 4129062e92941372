"""The class boxes of a draft: which pictures lie in which class, and how boxes and pictures are drawn.

Only files that the draft itself names are opened, never one that a browser names; what a browser picked comes back as
quoted words that the draft judges. Must not know components or the check.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from tl_core.drafts import Draft
from tl_core.errors import DataError
from tl_core.images.thumbnails import mosaic, thumbnail
from tl_core.images.wording import count
from tl_core.settings import Settings
from tl_core.sources import Ticker
from tl_core.survey import survey
from tl_core.ui.markup import data_uri, hint, text

PAGE = 60  # pictures at a time
# Sharp enough on screens with two pixels for one; 60 of them are some 300 KB.
THUMB_SIDE = 120
_CARD_SIDE = 140
_MOSAIC_OF = 4
# A thousand classes are listed, but not drawn: four pictures of each would have to be read.
MOSAICS_DRAWN = 200
_QUALITY = 78
# Of some 5 KB each.
_ADDRESSES_REMEMBERED = 2_000


@dataclass(frozen=True)
class Shown:
    """A picture that can be drawn: its name in the draft, where it lies, what identifies its content."""

    name: str
    path: Path
    digest: str


Boxes = Mapping[str, Sequence[Shown]]


def boxes_of(draft: Draft, settings: Settings, ticker: Ticker | None = None) -> dict[str, list[Shown]]:
    """Classes with their pictures, empty classes too. Raises DataError, HubError where a source cannot be read."""
    boxes: dict[str, list[Shown]]
    if draft.words == str(draft.dir):
        boxes = {name: [] for name in draft.classes()}
        for row in draft.rows():
            boxes.setdefault(row.label, []).append(Shown(row.file, draft.dir / row.file, row.digest))
        return boxes
    collection = survey(draft, settings, ticker).collection
    boxes = {name: [] for name in collection.classes}
    for picture in collection.pictures:
        boxes[picture.label].append(Shown(picture.name, picture.path, picture.digest))
    return boxes


def draw_boxes(boxes: Boxes, chosen: str, settings: Settings) -> str:
    """A card for each class: four of its pictures, its name, how many it has."""
    cards = []
    for number, (name, pictures) in enumerate(boxes.items()):
        drawn = _mosaic_address(tuple(pictures[:_MOSAIC_OF]), settings) if pictures and number < MOSAICS_DRAWN else ""
        image = f'<img src="{drawn}" alt="">' if drawn else '<span class="tl-nopicture" aria-hidden="true">+</span>'
        many = count(len(pictures), "picture", "pictures") if pictures else "no pictures yet"
        cards.append(
            f'<button type="button" class="tl-card" data-pick="{as_pick(name)}" '
            f'aria-pressed="{_truth(name == chosen)}">{image}'
            f"<b>{text(name)}</b><small>{many}</small></button>"
        )
    return f'<div class="tl-cards" role="group" aria-label="Classes">{"".join(cards)}</div>'


def draw_pictures(pictures: Sequence[Shown], settings: Settings, *, version: str, pressed: bool = False) -> str:
    """Pictures of one class as buttons that can be pressed; `version` makes sure that an edit draws them anew."""
    if not pictures:
        return hint("This class has no pictures yet: drop some above, or take some with the camera.")
    shown = "".join(
        f'<button type="button" class="tl-pick" data-pick="{as_pick(each.name)}" aria-pressed="{_truth(pressed)}" '
        f'aria-label="{text(each.name)}" title="{text(each.name)}">{picture_tag(each, settings)}</button>'
        for each in pictures
    )
    return f'<div class="tl-picks" role="group" aria-label="Pictures" data-version="{text(version)}">{shown}</div>'


def picture_tag(picture: Shown, settings: Settings) -> str:
    """A small copy; words where the file cannot be read any more."""
    try:
        return f'<img src="{_address(picture, settings)}" alt="" loading="lazy">'
    except (DataError, OSError):
        return '<span class="tl-nopicture">cannot be read</span>'


def as_pick(name: str) -> str:
    """A name so that it comes back from a browser as it was: shown, it lacks what cannot be printed."""
    return quote(name, safe="", errors="surrogatepass")


def read_pick(picked: object) -> str:
    """The name that `as_pick` made; "" for anything else that a client sent."""
    return unquote(picked, errors="replace") if isinstance(picked, str) else ""


def turned(pictures: Sequence[Shown], page: int | None) -> tuple[Sequence[Shown], int, int]:
    """The pictures of a page, its number from 1 (the nearest there is), and how many pages there are."""
    pages = max(1, -(-len(pictures) // PAGE))
    page = min(max(1, page or 1), pages)
    return pictures[(page - 1) * PAGE : page * PAGE], page, pages


def title_of(name: str, boxes: Boxes) -> str:
    many = count(len(boxes[name]), "picture", "pictures")
    return f'<h3 class="tl-h2">{text(name)}</h3><p class="tl-text tl-quiet">{many}. Press pictures to choose them.</p>'


def read_picks(picked: object) -> list[str]:
    """Names of pressed pictures, as a client sent them; at most those of a page."""
    return [name for each in picked[:PAGE] if (name := read_pick(each))] if isinstance(picked, list) else []


def read_names(marked: str | None) -> list[str]:
    """The pressed pictures again. Raises DataError where there are none."""
    try:
        names = json.loads(marked or "[]")
    except ValueError:
        names = []
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if not names:
        raise DataError("no pictures are chosen; press the pictures that you mean")
    return names


def _truth(pressed: bool) -> str:
    return "true" if pressed else "false"


@functools.lru_cache(maxsize=_ADDRESSES_REMEMBERED)
def _address(picture: Shown, settings: Settings) -> str:
    return data_uri(thumbnail(picture.path, picture.digest, THUMB_SIDE, settings), _QUALITY)


@functools.lru_cache(maxsize=_ADDRESSES_REMEMBERED)
def _mosaic_address(pictures: tuple[Shown, ...], settings: Settings) -> str:
    readable = []
    for picture in pictures:
        try:
            readable.append(thumbnail(picture.path, picture.digest, THUMB_SIDE, settings))
        except (DataError, OSError):  # the grid of the class says so, picture by picture
            continue
    return data_uri(mosaic(readable, _CARD_SIDE), _QUALITY)
