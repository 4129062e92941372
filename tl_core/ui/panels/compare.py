"""Compare: runs of one person side by side.

Must not know how a figure came about.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core.errors import DataError, TLError
from tl_core.ui.comparison import compare, make_entry
from tl_core.ui.events import listen
from tl_core.ui.markup import hint, notice_of_error
from tl_core.ui.panels.results import run_choices
from tl_core.ui.session import Session, own_run
from tl_core.ui.slot import slot

MOST_RUNS = 12
_WAITING = "Choose two or more runs to see them side by side. Each needs to have ended with a model."
# What is shown before anybody has chosen: the two that were trained last.
_OFFERED = 2


@dataclass(frozen=True)
class ComparePanel:
    runs: gr.Dropdown
    notice: gr.HTML
    table: gr.HTML


def build() -> ComparePanel:
    runs = gr.Dropdown(
        [],
        multiselect=True,
        max_choices=MOST_RUNS,
        label="Runs",
        info="Which of your trainings to compare.",
        elem_id="compare-runs",
    )
    notice = slot()
    table = slot(hint(_WAITING), elem_id="compare-table")
    return ComparePanel(runs, notice, table)


def bind(panel: ComparePanel, session: Session) -> None:
    def offer(chosen: list[str] | None, token: str) -> dict[Any, Any]:
        choices = run_choices(token)
        known = [word for _, word in choices]
        kept = [word for word in chosen or [] if word in known] or known[:_OFFERED]
        return {panel.runs: gr.Dropdown(choices, value=kept, multiselect=True)}

    def show(chosen: list[str] | None, token: str) -> dict[Any, Any]:
        try:
            return {panel.table: comparison_of(chosen or [], token)}
        except TLError as failure:  # no earlier table beside what went wrong
            return {panel.table: "", panel.notice: notice_of_error(failure)}

    view = partial(listen, inputs=[panel.runs, session.token], notice=panel.notice, kind="view")
    view([session.ready.change, session.finished.change], offer, outputs=[panel.runs])
    view(panel.runs.change, show, outputs=[panel.table])


def comparison_of(chosen: list[str], token: str | None) -> str:
    """Markup of several runs of the asker's. Raises JobError, DataError."""
    if len(chosen) > MOST_RUNS:
        raise DataError(f"{len(chosen)} runs are too many to look at together; choose up to {MOST_RUNS}")
    entries = [entry for word in chosen if (entry := make_entry(own_run(word, token))) is not None]
    return compare(entries) if len(entries) > 1 else hint(_WAITING)
