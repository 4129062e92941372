"""Results: how good a trained model is, where it is wrong, what it owes to its backbone, and how it was made.

Everything shown comes from the run's report. Must not know how a run is started or watched.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import api as endpoint

from tl_core.errors import JobError, TLError
from tl_core.runs import LIVE_STATES, Run
from tl_core.terminal import spoken_accuracy
from tl_core.ui.choices import RUNS_OFFERED, Choices, describe_run
from tl_core.ui.events import limits_of, listen, told_to_client
from tl_core.ui.markup import hint, notice, notice_of_error
from tl_core.ui.panels import mistakes, trained_model
from tl_core.ui.session import Session, own_run, own_runs
from tl_core.ui.slot import slot
from tl_core.ui.verdict import gain, learnt, settings_used, summary, trust

_NO_RUN = "No run is chosen yet. Train a model in the steps before, or choose one of your runs above."


@dataclass(frozen=True)
class ResultsPanel:
    run: gr.Dropdown
    notice: gr.HTML
    state: gr.HTML
    shown: gr.Textbox  # "ID@VERSION" of the report that is on the page, "" where there is none
    body: gr.Column
    verdict: gr.HTML
    gain: gr.HTML
    learnt: gr.HTML
    settings: gr.HTML
    command: gr.Code
    mistakes: mistakes.MistakesPanel
    model: trained_model.TrainedModelPanel


def build() -> ResultsPanel:
    run = gr.Dropdown([], label="Run", info="A training of yours that has ended.", elem_id="results-run")
    notice_place = slot()
    state = slot(hint(_NO_RUN), elem_id="results-state")
    shown = gr.Textbox(visible="hidden", label="report shown")
    with gr.Column(visible=False, elem_id="results-body") as body:
        verdict = slot(elem_id="results-verdict")
        model = trained_model.build()
        wrong = mistakes.build()
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                gr.Markdown("### What transfer gained")
                gained = slot(elem_id="results-gain")
            with gr.Column(scale=1, min_width=300):
                gr.Markdown("### Which parts learned")
                learnt_parts = slot(elem_id="results-layers")
        with gr.Accordion("How it was trained, and the command to repeat it", open=False):
            settings = slot(elem_id="results-settings")
            command = gr.Code(language="shell", label="Command", interactive=False, elem_id="results-command")
    return ResultsPanel(
        run, notice_place, state, shown, body, verdict, gained, learnt_parts, settings, command, wrong, model
    )


def bind(panel: ResultsPanel, session: Session) -> None:
    def offer(run_id: str | None, token: str) -> dict[Any, Any]:
        choices = run_choices(token)
        return {panel.run: gr.Dropdown(choices, value=run_id if run_id in dict(choices).values() else None)}

    def choose(run_id: str | None) -> dict[Any, Any]:
        return {session.run: run_id or ""}

    def show(run_id: str | None, token: str) -> dict[Any, Any]:
        nothing = {panel.body: gr.Column(visible=False), panel.shown: ""}
        said, run, report = find_result(run_id, token, _NO_RUN)
        if run is None or report is None:
            return {**nothing, panel.state: said}
        return {
            panel.state: said,
            panel.body: gr.Column(visible=True),
            panel.shown: report_word(run),
            panel.verdict: summary(report) + trust(report),
            panel.gain: gain(report),
            panel.learnt: learnt(report),
            panel.settings: settings_used(report),
            panel.command: report["command"],
        }

    @told_to_client
    def tell(run: str, token: str = "") -> str:
        """The one honest sentence about a run of the asker's."""
        return sentence_of(own_run(run, token))

    changes = [session.run.change, session.ready.change, session.finished.change]
    asked = [session.run, session.token]
    outputs = [
        *(panel.state, panel.body, panel.shown, panel.verdict),
        *(panel.gain, panel.learnt, panel.settings, panel.command),
    ]
    view = partial(listen, notice=panel.notice, kind="view")
    view(changes, offer, inputs=asked, outputs=[panel.run])
    view(changes, show, inputs=asked, outputs=outputs)
    view(panel.run.input, choose, inputs=[panel.run], outputs=[session.run])
    mistakes.bind(panel.mistakes, session, panel.shown)
    trained_model.bind(panel.model, session, panel.shown)
    endpoint(tell, api_name="results", **limits_of("view"))


def run_choices(token: str | None) -> Choices:
    """The asker's runs that have a report, newest first."""
    reported = [run for run in own_runs(token) if run.report_path.is_file()]
    return [(describe_run(run.view()), run.id) for run in reported[:RUNS_OFFERED]]


def report_word(run: Run) -> str:
    """ "ID@VERSION": another one once the report was written again, as after a control."""
    return f"{run.id}@{run.report_path.stat().st_mtime_ns}"


def find_result(
    run_id: str | None, token: str | None, none_chosen: str
) -> tuple[str, Run | None, dict[str, Any] | None]:
    """What is to be said of the asker's run, with the run, and its report where there is a model."""
    if not run_id:
        return hint(none_chosen), None, None
    try:
        run = own_run(run_id, token)
    except TLError as failure:
        return notice_of_error(failure), None, None
    said, report = state_of(run)
    return said, run, report


def state_of(run: Run) -> tuple[str, dict[str, Any] | None]:
    """What must be said before any figure, as markup, and the report where there is one."""
    report, view = run.report(), run.view()
    live = view.state in LIVE_STATES
    if report is not None:
        return (notice("The run still works: what is here can change until it ends.", "warn") if live else ""), report
    if live or view.state == "queued":
        doing = f" ({view.stage})" if live and view.stage else ""
        return hint(f"This run is {view.state}{doing}. Its results appear here when it has ended."), None
    if view.state == "failed":
        return notice_of_error(JobError(f"this run failed: {view.message.rstrip('.')}", view.details)), None
    if view.state == "lost":
        return notice(
            "The process of this run went away before there was a model. Resume the run to continue.", "warn"
        ), None
    return notice("This run was stopped before there was a model. Resume it to continue.", "warn"), None


def sentence_of(run: Run) -> str:
    """Raises JobError for a run without a report."""
    report = run.report()
    if report is None:
        raise JobError(f"run {run.id} is {run.view().state} and has no results yet")
    return spoken_accuracy(report["metrics"])
