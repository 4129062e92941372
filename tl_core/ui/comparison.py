"""Several runs side by side: their figures in a table, their intervals on one axis, and what may be concluded.

Must not know components, nor whose the runs are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_core.ml.metrics import paired_difference
from tl_core.parts import recall_parts
from tl_core.runs import Run
from tl_core.terminal import spoken_seconds
from tl_core.ui.markup import paragraph, sentences, table, text

Answers = dict[str, tuple[str, str]]  # file: (true class, answer)


@dataclass(frozen=True)
class Entry:
    """One run to compare. `tested` identifies the pictures that it was judged on; None where the run does not know."""

    name: str
    report: dict[str, Any]
    tested: frozenset[str] | None

    @property
    def accuracy(self) -> float:
        return float(self.report["metrics"]["accuracy"])

    @property
    def interval(self) -> tuple[float, float]:
        low, high = self.report["metrics"]["accuracy_ci"]
        return low, high

    def answers(self) -> Answers:
        return {row["file"]: (row["label"], row["predicted"]) for row in self.report["predictions"]}


def make_entry(run: Run) -> Entry | None:
    """None for a run without a report."""
    report = run.report()
    if report is None:
        return None
    parts = recall_parts(run)
    tested = None
    if parts is not None:
        tested = parts.train | parts.validation | parts.test if parts.uses_folds else parts.test
    return Entry(run.view().name or run.id, report, tested)


def compare(entries: Sequence[Entry]) -> str:
    """Markup: what may be concluded first, then intervals and figures."""
    concluded = "".join(map(paragraph, conclusions(entries)))
    return concluded + sentences(cautions(entries)) + draw_intervals(entries) + figures(entries)


def conclusions(entries: Sequence[Entry]) -> list[str]:
    """The best run against each other one that was judged on the same pictures."""
    best, *others = sorted(entries, key=lambda entry: -entry.accuracy)
    return [_describe_difference(best, other) for other in others if same_pictures(best, other)]


def cautions(entries: Sequence[Entry]) -> list[str]:
    """Where the best run's figure says nothing about another one's."""
    best, *others = sorted(entries, key=lambda entry: -entry.accuracy)
    apart = [other.name for other in others if not same_pictures(best, other)]
    if not apart:
        return []
    return [
        f"{best.name} was tested on other pictures than {', '.join(apart)}: figures on different pictures cannot be "
        "compared, whatever their intervals. Train on the same images with the same seed to compare."
    ]


def same_pictures(one: Entry, other: Entry) -> bool:
    """Whether two runs were asked the same questions: the same files, by content, in the same classes."""
    if one.tested is None or one.tested != other.tested:
        return False
    questions = ({file: truth for file, (truth, _) in each.answers().items()} for each in (one, other))
    return next(questions) == next(questions)


def overlap(one: Entry, other: Entry) -> bool:
    return one.interval[0] <= other.interval[1] and other.interval[0] <= one.interval[1]


def draw_intervals(entries: Sequence[Entry]) -> str:
    """Accuracies and their 95 % intervals on one axis from 0 to 100 %."""
    rows = "".join(map(_interval_row, entries))
    return (
        '<table class="tl-intervals" aria-label="Accuracies with their 95 % intervals"><tbody>'
        f'{rows}<tr aria-hidden="true"><th></th><td><span class="tl-ticks"><span>0 %</span><span>50 %</span>'
        "<span>100 %</span></span></td><td></td></tr></tbody></table>"
    )


def figures(entries: Sequence[Entry]) -> str:
    headings = (
        "Run",
        "Strategy",
        "Backbone",
        "Pictures tested",
        "Accuracy",
        "Macro-F1",
        "Time",
        "Gain over random weights",
    )
    return table(headings, [_row(entry) for entry in entries], "Runs side by side")


def _interval_row(entry: Entry) -> str:
    low, high = entry.interval
    return (
        f'<tr><th scope="row">{text(entry.name)}</th><td><span class="tl-axis">'
        f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
        f'<b style="left:{100 * entry.accuracy:.1f}%"></b></span></td>'
        f'<td class="tl-figure">{text(_spoken_interval(entry))}</td></tr>'
    )


def _row(entry: Entry) -> tuple[str, ...]:
    report, metrics = entry.report, entry.report["metrics"]
    return (
        entry.name,
        report["strategy"],
        report["backbone"]["id"],
        f"{metrics['images']:,}",
        f"{entry.accuracy:.1%} ({_spoken_interval(entry)})",
        f"{metrics['macro_f1']:.1%}",
        spoken_seconds(report["seconds"]["total"]),
        _spoken_control(report.get("control")),
    )


def _spoken_interval(entry: Entry) -> str:
    low, high = entry.interval
    return f"{low:.1%} to {high:.1%}"


def _spoken_control(control: dict[str, Any] | None) -> str:
    if control is None:
        return "not asked"
    if control["stopped"] or control.get("failed"):
        return "no figures"
    low, high = control["difference_ci"]
    return f"{100 * control['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def _describe_difference(best: Entry, other: Entry) -> str:
    """Both answered the same pictures, so what counts is where they disagree: a sharper test than two intervals."""
    first, second = best.answers(), other.answers()
    right = [np.array([answers[file][0] == answers[file][1] for file in first]) for answers in (first, second)]
    difference, low, high = paired_difference(right[0], right[1])
    if difference == 0:
        return f"On the same {len(first):,} pictures {best.name} and {other.name} are right equally often."
    if low <= 0:
        doubt = ": their intervals overlap, and the difference may be chance."
    elif overlap(best, other):
        doubt = ". Their intervals overlap, but where both were asked the same the difference is too large for chance."
    else:
        doubt = "."
    return (
        f"On the same {len(first):,} pictures {best.name} is {100 * difference:.1f} points better than {other.name} "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}){doubt}"
    )
