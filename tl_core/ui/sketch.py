"""A way to teach a backbone as a picture: which parts learn and which stay, before the backbone has been looked into.

Must not know backbones, nor what the words mean.
"""

from collections.abc import Sequence

from tl_core.ui.markup import text

_SPOKEN = {
    "frozen": "frozen",
    "learns": "learns",
    "gently": "learns in small steps",
    "anew": "learns from nothing",
    "decided": "learns if that helps",
}
_STYLES = {
    "frozen": "tl-frozen",
    "learns": "tl-trained",
    "gently": "tl-gently",
    "anew": "tl-trained",
    "decided": "tl-frozen",
}


def sketch(parts: Sequence[str], lots: Sequence[str]) -> str:
    """Parts of a network from picture to answer, and what happens to each."""
    boxes = "".join(
        f'<li class="{_STYLES[lot]}"><b>{text(part)}</b><em>{text(_SPOKEN[lot])}</em></li>'
        for part, lot in zip(parts, lots, strict=True)
    )
    words = "; ".join(f"{part}: {_SPOKEN[lot]}" for part, lot in zip(parts, lots, strict=True))
    return (
        f'<figure class="tl-layers tl-sketch"><ol aria-label="{text(words)}">{boxes}</ol>'
        "<figcaption>From the picture, on the left, to the answer, on the right</figcaption></figure>"
    )
