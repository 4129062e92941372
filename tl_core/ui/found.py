"""What the check found, in words and pictures: counts, split, warnings, what was left out, what looks alike.

Must not know components, nor how any of it was found.
"""

import re
from collections.abc import Sequence

from tl_core.images.collection import TEST, TRAIN, VALIDATION, Picture
from tl_core.images.report import Report
from tl_core.images.wording import count, name_some
from tl_core.settings import Settings
from tl_core.survey import Survey
from tl_core.ui.boxes import Shown, as_pick, picture_tag
from tl_core.ui.form import in_labels
from tl_core.ui.markup import bars, paragraph, sentences, table, text

GROUPS_SHOWN = 12
PICTURES_SHOWN = 6
SKIPPED_SHOWN = 50
# Bars of more classes than these are left to the largest and the smallest.
_BARS_SHOWN, _EXTREMES_SHOWN = 40, 15
# Of a draft's own table: names made from content, and columns that nobody chose.
_OWN_NAMES = re.compile(r" \(such as 'pictures/[^)]*\)")
_OWN_TABLE = "Images are taken from the column 'file', labels from 'label'."
_PARTS = {
    TRAIN: "what the model learns from",
    VALIDATION: "checked while it learns, to stop before it knows the training pictures by heart (overfitting)",
    TEST: "put aside until the end, for an honest figure: no decision was made with them",
}


def lead_sentence(report: Report) -> str:
    """How many images in how many classes, and how many files were left out."""
    counts = report.classes.values()
    low, high = min(counts), max(counts)
    each = f"{low:,} each" if low == high else f"{low:,} to {high:,} each"
    skipped = f" {count(len(report.skipped), 'file was', 'files were')} left out." if report.skipped else ""
    classes = count(len(report.classes), "class", "classes")
    return f"{count(report.images, 'image', 'images')} in {classes}, {each}.{skipped}"


def can_be_trained(report: Report) -> bool:
    return len(report.classes) > 1 and bool(report.splits[TEST])


def draw_findings(found: Survey, settings: Settings, empty: Sequence[str] = ()) -> str:
    """Everything the check has to say, most important first; `empty` are classes with a name and no picture."""
    report = found.report
    without = f"{name_some(empty)} {'has' if len(empty) == 1 else 'have'} no pictures yet, and will not be learned."
    return "".join(
        (
            paragraph(lead_sentence(report), "tl-lead"),
            sentences([*([without] if empty else []), *map(_without_own_names, report.warnings)]),
            '<div class="tl-columns"><div>',
            f"<h3>Classes</h3>{_draw_counts(report)}</div>",
            f"<div><h3>How they are divided</h3>{_draw_split(report)}</div></div>",
            sentences([in_labels(note) for note in report.notes if note != _OWN_TABLE], "good"),
            draw_alike(found, settings),
            _draw_skipped(report),
        )
    )


def draw_alike(found: Survey, settings: Settings) -> str:
    """Doubtful pairs, copies and look-alikes side by side, each with its label and a button to remove it."""
    pictures, duplicates = found.collection.pictures, found.duplicates
    kinds = (
        (
            "The same picture under two labels",
            "No model can be right about both. Remove the one that is wrong.",
            [conflict.pictures for conflict in duplicates.conflicts],
        ),
        (
            "Copies",
            "The same file more than once adds nothing, and in two parts it makes the figures too good.",
            copies_in(found),
        ),
        (
            "Nearly the same",
            "Frames of one scene, or one picture saved twice. They are kept on one side of the division; each teaches "
            "less than a new picture would.",
            alike_in(found),
        ),
    )
    return "".join(_draw_groups(title, why, pictures, groups, settings) for title, why, groups in kinds if groups)


def copies_in(found: Survey) -> list[tuple[int, ...]]:
    """Groups of equal files; one file that two rows of a table name is no copy."""
    pictures = found.collection.pictures
    return [group for group in found.duplicates.exact_groups if len({pictures[index].path for index in group}) > 1]


def alike_in(found: Survey) -> list[tuple[int, ...]]:
    """Groups of pictures that are nearly the same."""
    return found.duplicates.near_groups


def surplus(found: Survey, groups: Sequence[Sequence[int]]) -> list[str]:
    """The names of all but the first picture of each group. Groups with two labels are for a person to judge."""
    pictures = found.collection.pictures
    return [
        pictures[index].name
        for group in groups
        if len({pictures[index].label for index in group}) == 1
        for index in group[1:]
    ]


def _without_own_names(warning: str) -> str:
    return in_labels(_OWN_NAMES.sub("", warning))


def _draw_counts(report: Report) -> str:
    largest = max(report.classes.values())
    rows = [(name, number / largest, f"{number:,}") for name, number in report.classes.items()]
    if len(rows) <= _BARS_SHOWN:
        return bars(rows, "Images in each class")
    rows.sort(key=lambda row: -row[1])
    between = len(rows) - 2 * _EXTREMES_SHOWN
    return (
        bars(rows[:_EXTREMES_SHOWN], "Images in the largest classes")
        + paragraph(f"… {between:,} classes between …", "tl-quiet")
        + bars(rows[-_EXTREMES_SHOWN:], "Images in the smallest classes")
    )


def _draw_split(report: Report) -> str:
    if report.splits["folds"]:
        return paragraph(
            "There are few pictures, so that each is judged once by a model that has not seen it (cross-validation), "
            "and the final model then learns from all of them."
        ) + paragraph(
            "Why not judge it by the pictures it learnt from? It can know those by heart (overfitting), which says "
            "nothing about a new picture.",
            "tl-quiet",
        )
    rows = [(part, report.splits[part] / report.images, f"{report.splits[part]:,}") for part in _PARTS]
    drawn = "Divided as they came." if report.splits["given"] else "Drawn at random, the same way each time."
    meanings = "".join(f"<li><b>{part}</b>: {words}</li>" for part, words in _PARTS.items())
    counts = bars(rows, "Images in each part")
    return f'{counts}<ul class="tl-notes">{meanings}</ul>{paragraph(drawn, "tl-quiet")}'


def _draw_skipped(report: Report) -> str:
    if not report.skipped:
        return ""
    rows = [(entry["file"], entry["reason"]) for entry in report.skipped[:SKIPPED_SHOWN]]
    more = len(report.skipped) - len(rows)
    return (
        '<details class="tl-details"><summary>'
        f"{count(len(report.skipped), 'file', 'files')} left out, and why</summary>"
        f"{table(('File', 'Why'), rows, 'Files that were left out')}"
        f"{_and_more(more)}</details>"
    )


def _draw_groups(
    title: str, why: str, pictures: Sequence[Picture], groups: Sequence[Sequence[int]], settings: Settings
) -> str:
    drawn = "".join(_draw_group([pictures[index] for index in group], settings) for group in groups[:GROUPS_SHOWN])
    more = len(groups) - GROUPS_SHOWN
    return (
        f'<details class="tl-details" open><summary>{title}: {count(len(groups), "group", "groups")}</summary>'
        f'{paragraph(why)}<div class="tl-groups">{drawn}</div>'
        f"{_and_more(more)}</details>"
    )


def _draw_group(group: Sequence[Picture], settings: Settings) -> str:
    shown = "".join(
        f"<figure>{picture_tag(Shown(each.name, each.path, each.digest), settings)}<figcaption>"
        f'<b>{text(each.label)}</b><small title="{text(each.name)}">{text(each.name)}</small></figcaption>'
        f'<button type="button" class="tl-remove" data-pick="{as_pick(each.name)}" '
        f'aria-label="Remove {text(each.name)}">Remove</button></figure>'
        for each in group[:PICTURES_SHOWN]
    )
    more = len(group) - PICTURES_SHOWN
    return f'<div class="tl-group">{shown}{_and_more(more)}</div>'


def _and_more(number: int) -> str:
    return paragraph(f"and {number:,} more" if number > 0 else "", "tl-quiet")
