"""How images come into a draft of the asker's, and what to say of it.

What fails leaves no draft behind. Must not know components or HTML.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tl_core.drafts import Draft, create_draft
from tl_core.errors import DataError, TLError
from tl_core.images.listing import kind_of
from tl_core.images.wording import count, name_some, shorten
from tl_core.settings import read_settings
from tl_core.sources import Ticker
from tl_core.survey import survey
from tl_core.ui.choices import Choices, allowed_data
from tl_core.ui.found import lead_sentence
from tl_core.ui.session import draft_word, own_draft, own_drafts, owner_of

EARLIER_OFFERED = 20
_REASONS_SHOWN = 5


def are_loose(files: Sequence[str]) -> bool:
    """Whether these are pictures alone, that say nothing of their class."""
    return bool(files) and all(kind_of(Path(file).name) == "image" for file in files)


def open_words(word: str | None, token: str | None, ticker: Ticker | None = None) -> tuple[Draft, str]:
    """A new draft of a sample, a Hub dataset or a path, checked. Raises DataError, HubError, with no draft left."""
    settings = read_settings()
    return _checked(create_draft(settings, owner_of(token), allowed_data(word)), ticker)


def open_upload(files: Sequence[str], token: str | None, ticker: Ticker | None = None) -> tuple[Draft, str]:
    """A new draft of one uploaded zip or table, checked. Raises DataError, with no draft left."""
    draft = create_draft(read_settings(), owner_of(token))
    try:
        try:
            draft.take_upload(files)
            return _checked(draft, ticker)
        except BaseException:
            draft.discard()
            raise
    except TLError as failure:
        place = re.compile(re.escape(str(draft.dir)) + r"/\S*/")  # ours, and of no use to whoever dropped a file
        raise type(failure)(place.sub("", failure.message), [place.sub("", line) for line in failure.details]) from None


def add_to_class(
    label: str, files: Sequence[str], word: str | None, token: str | None, ticker: Ticker | None = None
) -> tuple[Draft, str]:
    """Pictures into a class of the asker's draft, a new one where there is none yet. Raises DataError."""
    if not files:
        raise DataError("no pictures were given; drop some first")
    draft = current_or_new(word, token)
    try:
        return draft, spoken_addition(label, draft.add_pictures(label, files, ticker))
    except TLError:
        if not word:
            draft.discard()
        raise


def add_class(name: str, word: str | None, token: str | None) -> tuple[Draft, str]:
    """A class in the asker's draft, a new one where there is none yet; its spelling. Raises DataError."""
    draft = current_or_new(word, token)
    try:
        return draft, draft.add_class(name)
    except TLError:
        if not word:
            draft.discard()
        raise


def current_or_new(word: str | None, token: str | None) -> Draft:
    """The draft that a browser keeps; a new one where it keeps none. Raises DataError for one that is not its own."""
    return own_draft(word, token) if word else create_draft(read_settings(), owner_of(token))


def spoken_addition(label: str, result: dict[str, Any]) -> str:
    """What became of the pictures that were to be added."""
    added, skipped = result["added"], result["skipped"]
    words = f"{count(added, 'picture', 'pictures')} added to “{shorten(label.strip())}”."
    if skipped:
        reasons = "; ".join(f"{shorten(each['file'])}: {each['reason']}" for each in skipped[:_REASONS_SHOWN])
        more = f"; and {len(skipped) - _REASONS_SHOWN:,} more" if len(skipped) > _REASONS_SHOWN else ""
        words += f" {count(len(skipped), 'was', 'were')} left out ({reasons}{more})."
    return words


def earlier_choices(token: str | None) -> Choices:
    """The asker's drafts, newest first: what they were made from, and when."""
    return [(_describe_draft(draft), draft.id) for draft in own_drafts(token)[:EARLIER_OFFERED]]


def _describe_draft(draft: Draft) -> str:
    words = draft.words
    inside = Path(words).is_relative_to(draft.dir) if Path(words).is_absolute() else False
    name = "collected here" if words == str(draft.dir) else Path(words).name if inside else words
    if words == str(draft.dir) and (names := list(draft.classes())):
        name = name_some(names)
    return f"{shorten(name)}, begun {time.strftime('%d %b, %H:%M', time.localtime(draft.created_ns() / 1e9))}"


def _checked(draft: Draft, ticker: Ticker | None) -> tuple[Draft, str]:
    try:
        return draft, f"Opened: {lead_sentence(survey(draft, draft.settings, ticker).report)}"
    except TLError:
        draft.discard()
        raise


def still_there(word: str | None, token: str | None) -> str:
    """The word for the draft that a browser keeps, as it is now; "" where the asker has none such."""
    try:
        return draft_word(own_draft(word, token)) if word else ""
    except DataError:  # removed from the disk, or of a browser that was forgotten: nothing to tell anybody
        return ""
