"""Small pieces of HTML, every word of which is escaped: class names, file names and log lines are never markup.

The only place where HTML is put together. Must not know where the values come from.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tl_core.errors import TLError, printable

if TYPE_CHECKING:
    from PIL import Image

# Less than this and the other classes together are more probable than the best one.
UNSURE_BELOW = 0.5
_UNSURE = "It is not sure. A model knows only the classes it was taught: perhaps this picture shows none of them."


def text(value: object) -> str:
    """Any value as text that can stand in HTML, also within an attribute."""
    return escape(printable(str(value)), quote=True)


def data_uri(image: "Image.Image", quality: int) -> str:
    """A picture as an address that holds the picture itself, a JPEG: no file has to be handed out."""
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(stored.getvalue()).decode()}"


def paragraph(words: str, style: str = "") -> str:
    return f'<p class="tl-text {style}">{text(words)}</p>' if words else ""


def hint(words: str) -> str:
    """What to do next, where there is nothing to show yet."""
    return f'<p class="tl-hint">{text(words)}</p>'


def notice_of_error(failure: TLError) -> str:
    details = "".join(f"<li>{text(line)}</li>" for line in failure.details)
    first = failure.message.partition(" ")[0]  # an id or an address stays as it is written
    sentence = text(failure.message[:1].upper() + failure.message[1:] if first.isalpha() else failure.message)
    return (
        f'<div class="tl-notice tl-bad" role="alert"><p>{sentence}.</p>{f"<ul>{details}</ul>" if details else ""}</div>'
    )


def notice_of_fault(failure: Exception) -> str:
    return (
        '<div class="tl-notice tl-bad" role="alert"><p>This went wrong, and it is a fault of the app, not yours '
        f"({text(type(failure).__name__)}). Its log, where it was started, has the details. What you had is still "
        "there.</p></div>"
    )


def notice(words: str, kind: str = "good") -> str:
    """`kind` is good, warn or bad."""
    return f'<div class="tl-notice tl-{kind}" role="status"><p>{text(words)}</p></div>'


def link(address: str, words: str = "") -> str:
    """To another site, in a tab of its own; what is no address of the web stays words."""
    if not address.startswith(("https://", "http://")):
        return text(words or address)
    return f'<a href="{text(address)}" target="_blank" rel="noopener noreferrer">{text(words or address)}</a>'


def sentences(lines: Iterable[str], kind: str = "warn") -> str:
    """One box with a line for each sentence; nothing where there are none."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<div class="tl-notice tl-{kind}"><ul>{items}</ul></div>' if items else ""


def bars(rows: Sequence[tuple[str, float, str]], label: str, *, marked: str = "") -> str:
    """A bar for each (name, share 0–1, words); the words say the figure, so that the bar is not the only one to."""
    lines = "".join(
        f'<tr{" class=tl-marked" if name == marked else ""}><th scope="row">{text(name)}</th>'
        f'<td><span class="tl-bar" style="width:{100 * max(0.0, min(1.0, share)):.1f}%"></span></td>'
        f'<td class="tl-figure">{text(words)}</td></tr>'
        for name, share, words in rows
    )
    return f'<table class="tl-bars" aria-label="{text(label)}"><tbody>{lines}</tbody></table>'


def answer_bars(model: str, labels: Sequence[dict[str, Any]]) -> str:
    """What a model says of a picture: [{label, score}], best first."""
    best = f"{labels[0]['label']}, {labels[0]['score']:.1%}"
    rows = [(entry["label"], entry["score"], f"{entry['score']:.1%}") for entry in labels]
    drawn = bars(rows, f"Probabilities by {model}", marked=labels[0]["label"])
    doubt = "" if labels[0]["score"] >= UNSURE_BELOW else paragraph(_UNSURE, "tl-quiet")
    return f"{paragraph(model, 'tl-quiet')}{paragraph(best, 'tl-lead')}{drawn}{doubt}"


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], label: str) -> str:
    """A plain table; numbers should come as words already."""
    head = "".join(f'<th scope="col">{text(heading)}</th>' for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{text(value)}</td>" for value in row) + "</tr>" for row in rows)
    return (
        f'<div class="tl-scroll" tabindex="0" role="region" aria-label="{text(label)}"><table class="tl-table"><thead>'
        f"<tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values side by side."""
    return (
        '<dl class="tl-facts">'
        + "".join(f"<div><dt>{text(a)}</dt><dd>{text(b)}</dd></div>" for a, b in pairs)
        + "</dl>"
    )


def progress_bar(words: str, share: float | None) -> str:
    """A bar with words; `share` None where nobody knows how much is left."""
    if share is None:
        return f'<div class="tl-progress tl-endless" role="progressbar" aria-label="{text(words)}"><i></i></div>'
    percent = 100 * max(0.0, min(1.0, share))
    return (
        f'<div class="tl-progress" role="progressbar" aria-label="{text(words)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.0f}"><i style="width:{percent:.1f}%"></i></div>'
    )


def layers(groups: Sequence[dict[str, Any]]) -> str:
    """A backbone drawn as its layer groups from picture to answer, [{name, parameters, trained}]: who learns."""
    if not groups:
        return ""
    boxes = "".join(
        f'<li class="{"tl-trained" if group["trained"] else "tl-frozen"}"><b>{text(group["name"])}</b>'
        f"<span>{text(spoken_number(group['parameters']))}</span>"
        f"<em>{'learns' if group['trained'] else 'frozen'}</em></li>"
        for group in groups
    )
    trained = [group for group in groups if group["trained"]]
    share = sum(group["parameters"] for group in trained) / max(1, sum(group["parameters"] for group in groups))
    words = f"{len(trained)} of {len(groups)} parts learn: {share:.1%} of the parameters"
    return (
        f'<figure class="tl-layers"><ol aria-label="{text(words)}">{boxes}</ol>'
        f"<figcaption>{text(words)}</figcaption></figure>"
    )


def as_sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""


def spoken_bytes(size: int) -> str:
    """1,234 → 1.2 kB, 2,850,000 → 2.9 MB."""
    for unit, letters in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {letters}"
    return f"{size:,} bytes"


def spoken_number(value: float) -> str:
    """1,234 → 1.2 k, 2,850,000 → 2.9 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:,.0f}"
