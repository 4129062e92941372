"""A ranking of backbones as the page shows it: what to take, a bar for each with its interval, and all figures.

Takes the plain values of `api.rank`. Must not know components, nor how a figure came about.
"""

from collections.abc import Mapping
from typing import Any

from tl_core.images.wording import count, spoken_pace
from tl_core.terminal import spoken_size
from tl_core.ui.markup import as_sentence, notice, paragraph, sentences, spoken_number, table, text

_EXPLAINED = (
    "The bar is the share of the pictures that a new last layer on the frozen backbone has right, each judged by one "
    "that had not seen it; the line across its end is the 95 % interval. Fine-tuning can change the order. LogME and "
    "neighbours say without any training how well the backbone keeps your classes apart: where they agree with the "
    "order, trust it more."
)


def draw_ranking(value: Mapping[str, Any]) -> str:
    """Markup with a button for each backbone, whose data-pick is its id."""
    backbones = value["backbones"]
    advice = value["recommendation"]
    failed = [f"{entry['id']} could not be asked: {entry['reason']}" for entry in value["failed"]]
    judged = " ".join([f"{count(value['judged'], 'picture was', 'pictures were')} judged.", *value["notes"]])
    rows = "".join(_draw_row(row, place, advice) for place, row in enumerate(backbones))
    return (
        notice(f"For accuracy: {advice['accuracy']['reason']}")
        + notice(f"For speed: {advice['speed']['reason']}")
        + sentences(map(as_sentence, failed))
        + f'<table class="tl-ranked" aria-label="Backbones, best first"><tbody>{rows}</tbody></table>'
        + paragraph(judged, "tl-quiet")
        + paragraph(_EXPLAINED, "tl-quiet")
        + _figures(backbones)
    )


def _draw_row(row: Mapping[str, Any], place: int, advice: Mapping[str, Any]) -> str:
    low, high = row["score_ci"]
    name, score = text(row["id"]), f"{row['score']:.1%}"
    badges = [
        words for key, words in (("accuracy", "for accuracy"), ("speed", "for speed")) if advice[key]["id"] == row["id"]
    ]
    return (
        f'<tr><th scope="row">{name}<small>{text(_beside(row, place))}</small></th>'
        f'<td><span class="tl-axis" role="img" aria-label="{score}, 95 % interval {low:.1%} to {high:.1%}">'
        f'<em style="width:{100 * row["score"]:.1f}%"></em>'
        f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i></span>'
        f"<small>{score} ({low:.1%} to {high:.1%})"
        f"{''.join(f'<mark>{words}</mark>' for words in badges)}</small></td>"
        f'<td><button type="button" class="tl-take" data-pick="{name}" aria-label="Take {name}">Take</button></td></tr>'
    )


def _beside(row: Mapping[str, Any], place: int) -> str:
    """Under a name: its pace and size, and whether it is shown to be worse than the first."""
    said = f"{spoken_pace(row['seconds_per_image'])} a picture, {spoken_size(row['size'])}"
    return said if place == 0 or row["distinguishable"] else f"{said}; not distinguishable from the first"


def _figures(backbones: list[dict[str, Any]]) -> str:
    headings = ("Backbone", "Behind the first", "Neighbours", "LogME", "A picture", "Parameters", "On disk", "Sees")
    return (
        '<details class="tl-details"><summary>All figures</summary>'
        + table(headings, [_cells(row, place) for place, row in enumerate(backbones)], "All figures of the backbones")
        + "</details>"
    )


def _cells(row: Mapping[str, Any], place: int) -> tuple[str, ...]:
    low, high = (100 * bound for bound in row["difference_ci"])
    behind = f"{100 * row['difference']:.1f} points ({low:+.1f} to {high:+.1f})" if place else ""
    height, width = row["input_size"]
    return (
        *(row["id"], behind, f"{row['neighbours']:.1%}", f"{row['logme']:.3f}"),
        *(spoken_pace(row["seconds_per_image"]), spoken_number(row["parameters"])),
        *(spoken_size(row["size"]), f"{width} × {height} px"),
    )
