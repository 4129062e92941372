"""The asker's runs, newest first; a click on one makes it the run that is looked at.

Must not know how a run is watched or judged.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core.jobs import queue_of
from tl_core.settings import read_settings
from tl_core.ui.events import listen
from tl_core.ui.markup import hint, paragraph
from tl_core.ui.run_cards import run_list
from tl_core.ui.session import Session, own_run, own_runs
from tl_core.ui.slot import PICK, slot

# Each costs some small files to read.
RUNS_SHOWN = 50
_NONE = "You have no runs yet. A run is one training: start one under “Train”, and it is listed here from then on."


@dataclass(frozen=True)
class RunsPanel:
    notice: gr.HTML
    runs: gr.HTML
    refresh: gr.Button


def build() -> RunsPanel:
    with gr.Row(elem_classes="tl-runs-head"):
        slot('<h2 class="tl-h2">Your runs</h2>')
        refresh = gr.Button("Look again", size="sm", scale=0, min_width=110, elem_id="runs-refresh")
    notice = slot()
    runs = slot(hint(_NONE), js_on_load=PICK, elem_id="runs-list")
    return RunsPanel(notice, runs, refresh)


def bind(panel: RunsPanel, session: Session, *opened: Any) -> None:
    """`opened` are triggers that somebody comes to look: what waits moves up without a word."""

    def show(run_id: str | None, token: str | None) -> dict[Any, Any]:
        return {panel.runs: list_own(run_id, token)}

    def pick(token: str | None, event: gr.EventData) -> dict[Any, Any]:
        return {session.run: own_run(getattr(event, "picked", None), token).id}

    view = partial(listen, notice=panel.notice, kind="view")
    looked_at = [session.ready.change, session.run.change, session.finished.change, panel.refresh.click, *opened]
    view(looked_at, show, inputs=[session.run, session.token], outputs=[panel.runs])
    view(panel.runs.click, pick, inputs=[session.token], outputs=[session.run])


def list_own(run_id: str | None, token: str | None) -> str:
    """Markup of the asker's newest runs, `run_id` marked as the one that is looked at."""
    runs = own_runs(token)
    if not runs:
        return hint(_NONE)
    queue = queue_of(read_settings())
    views = [run.view(queue) for run in runs[:RUNS_SHOWN]]
    older = len(runs) - len(views)
    more = paragraph(f"{older:,} older ones are not listed; `python -m tl_core runs` has them all", "tl-quiet")
    return run_list(views, run_id or "", time.time()) + (more if older else "")
