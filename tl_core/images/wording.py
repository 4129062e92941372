"""How names, numbers and other people's messages are put into a sentence: short, and unable to steer a terminal.

Must not know: what the sentences are about.
"""

import unicodedata
from collections.abc import Sequence

# Lines under an error that name files.
DETAILS_SHOWN = 10
_NAMES_SHOWN = 5
_NAME_LENGTH = 60
_MESSAGE_LENGTH = 120
# They join and part letters: families of emoji, Persian words.
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"


def shorten(text: str, length: int = _NAME_LENGTH) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def one_line(message: object) -> str:
    """A library's message, or any text of unknown length, on one line."""
    return shorten(" ".join(str(message).split()), _MESSAGE_LENGTH)


def name_some(names: Sequence[str]) -> str:
    """The first few names, quoted and shortened, and how many more there are."""
    shown = ", ".join(repr(shorten(name)) for name in names[:_NAMES_SHOWN])
    return shown + (f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else "")


def count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def spoken_pace(seconds: float) -> str:
    """Seconds for one picture, or for anything else that is done many times."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"


def printable(line: str) -> str:
    """`line` without what moves the cursor or turns the direction of writing; letters of every language stay."""
    return "".join(
        letter
        if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"
        else "\N{REPLACEMENT CHARACTER}"
        for letter in line
    )
