"""A confusion matrix as a table that can be read, clicked and walked through with the keyboard.

Must not know where the figures come from, nor what a click shows.
"""

from collections.abc import Sequence

from tl_core.errors import DataError
from tl_core.images.wording import count
from tl_core.result_pictures import choose_classes
from tl_core.ui.markup import paragraph, text

Matrix = Sequence[Sequence[int]]  # rows: true class, columns: predicted class

# More rows and columns than a person can follow with the eye, and than a page draws at once (1,600 buttons).
MOST_CLASSES = 40
# Names of so few letters stand upright above their columns.
_SHORT_NAME = 4
# A cell's shade is its share of the row. Above this one dark letters cannot be read on it any more.
_DARK_SHARE = 0.85

_HOW_TO_READ = (
    "Rows: what a picture is. Columns: what the model took it for. The darker, the larger the share of its row. Click "
    "a figure to see the pictures."
)


def draw_matrix(labels: Sequence[str], matrix: Matrix) -> str:
    """Every cell that holds pictures is a button with data-pick "row,column", which `read_pick` understands."""
    shown = choose_classes(matrix, MOST_CLASSES)
    left_out = len(labels) - len(shown)
    said = (
        f"The {len(shown)} of {len(labels):,} classes that are confused most often. Pictures taken for another class "
        "count in their row's shade, but have no column here."
        if left_out
        else ""
    )
    upright = all(len(labels[each]) <= _SHORT_NAME for each in shown)
    style = "tl-matrix tl-short" if upright else "tl-matrix"
    head = "".join(
        f'<th scope="col" title="{text(labels[each])}"><span>{text(labels[each])}</span></th>' for each in shown
    )
    body = "".join(_row(labels, matrix[row], row, shown) for row in shown)
    return (
        f"{paragraph(_HOW_TO_READ, 'tl-quiet')}{paragraph(said, 'tl-quiet')}"
        '<div class="tl-scroll" tabindex="0" role="region" aria-label="Confusion matrix">'
        f'<table class="{style}"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def describe_cell(pictures: int, truth: str, answer: str) -> str:
    number = count(pictures, "picture", "pictures")
    return f"{number} of {truth} recognised" if truth == answer else f"{number} of {truth} taken for {answer}"


def read_pick(picked: object, classes: int) -> tuple[int, int]:
    """(true, predicted) class numbers of a click. Raises DataError for what no cell of `classes` classes sends."""
    parts = picked.split(",") if isinstance(picked, str) else []
    if len(parts) == 2 and all(part.isascii() and part.isdecimal() and len(part) < 9 for part in parts):
        row, column = int(parts[0]), int(parts[1])
        if row < classes and column < classes:
            return row, column
    raise DataError("this cell is not one of the table's; click a figure in the table")


def _row(labels: Sequence[str], figures: Sequence[int], row: int, shown: Sequence[int]) -> str:
    total = sum(figures)
    name = text(labels[row])
    cells = "".join(_cell(labels, figures[column], row, column, total) for column in shown)
    return f'<tr><th scope="row" title="{name}"><span>{name}</span></th>{cells}</tr>'


def _cell(labels: Sequence[str], pictures: int, row: int, column: int, total: int) -> str:
    if not pictures:
        return "<td></td>"
    share = pictures / total
    kinds = ["tl-cell", "tl-right" if row == column else "tl-wrong"] + (["tl-dark"] if share > _DARK_SHARE else [])
    return (
        f'<td><button type="button" class="{" ".join(kinds)}" style="--share:{100 * share:.0f}%" '
        f'data-pick="{row},{column}" aria-label="{text(describe_cell(pictures, labels[row], labels[column]))}">'
        f"{pictures:,}</button></td>"
    )
