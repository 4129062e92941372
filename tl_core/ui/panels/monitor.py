"""Watch: one run, live. Where it is, how long it still takes, its curves, what it decided, its log; stop and resume.

Everything is read from the run folder at each look; a tick of the clock only looks again. Must not know the list of
runs, nor what results look like.
"""

import json
import time
import zlib
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import api as gradio_api

from tl_core.errors import JobError
from tl_core.jobs import kill_run, queue_of, request_stop
from tl_core.runs import LIVE_STATES, RESUMABLE_STATES, Run, RunView
from tl_core.settings import read_settings
from tl_core.ui.events import limits_of, listen, told_to_client
from tl_core.ui.markup import hint, notice_of_error
from tl_core.ui.plots import ACCURACY_COLOURS, CURVE_KINDS, LOSS_COLOURS, accuracy_curve, loss_curve
from tl_core.ui.progress import GOING_STATES, notes_of, seconds_left, share_done, spoken_stage, spoken_state
from tl_core.ui.reading import read_on, size_of
from tl_core.ui.run_cards import curves_explained, note_list, run_head, run_outcome, stopping_explained
from tl_core.ui.session import Session, own_run
from tl_core.ui.slot import slot
from tl_core.ui.starting import go_on

TICK_SECONDS = 1.5
LOG_LINES = 200
_PLOT_HEIGHT = 240
# Of so many, two belong to the same curve: fewer make no line.
_FEWEST_POINTS = 3
_NOTHING = "Nothing to watch yet: start a training under “Train”, or choose one of your runs."
# The address names the run that is watched, so that a reload or a link finds it; what else it says stays.
_JS_ADDRESS = """(run) => {
  const url = new URL(window.location.href);
  if (run) { url.searchParams.set("run", run); } else { url.searchParams.delete("run"); }
  window.history.replaceState(window.history.state, "", url);
  return run ? url.href : "";
}"""
# What is new in a log is at its end; from there the text box follows by itself.
_JS_LOG_END = """() => setTimeout(() => {
  const log = document.querySelector("#watch-log textarea");
  if (log) { log.scrollTop = log.scrollHeight; }
}, 100)"""


@dataclass(frozen=True)
class Seen:
    """What a tab shows already. It comes from the browser: wrong values cost it a look at everything, no more."""

    run: str = ""
    state: str = ""
    points: int = 0  # events that the curves are drawn from
    notes: int = 0
    log: int = 0  # bytes
    head: int = 0  # checksum of what is drawn
    has_report: bool = False

    @classmethod
    def parse(cls, text: str | None) -> "Seen":
        try:
            values = json.loads(text or "{}")
        except (ValueError, RecursionError):
            return cls()
        known = {field.name: field.type for field in fields(cls)}
        fits = isinstance(values, dict) and {name: type(value) for name, value in values.items()} == known
        return cls(**values) if fits else cls()


@dataclass(frozen=True)
class MonitorPanel:
    notice: gr.HTML
    empty: gr.HTML
    body: gr.Column
    head: gr.HTML
    outcome: gr.HTML
    to_results: gr.Button
    resume: gr.Button
    stop: gr.Button
    stop_now: gr.Button
    advice: gr.HTML
    curves: gr.Row
    loss: gr.LinePlot
    accuracy: gr.LinePlot
    curves_hint: gr.HTML
    notes_box: gr.Accordion
    notes: gr.HTML
    log_box: gr.Accordion
    log: gr.Textbox
    link: gr.Textbox
    timer: gr.Timer
    opened: gr.Textbox
    seen: gr.Textbox


def build() -> MonitorPanel:
    message = slot()
    empty = slot(hint(_NOTHING), elem_id="watch-empty")
    with gr.Column(visible=False, elem_id="watch-body") as body:
        head = slot(elem_id="watch-head")
        outcome = slot(elem_id="watch-outcome")
        with gr.Row(elem_classes="tl-buttons"):
            to_results = gr.Button("See the results", variant="primary", visible=False, elem_id="watch-to-results")
            resume = gr.Button("Resume", visible=False, elem_id="watch-resume")
            stop = gr.Button("Stop", visible=False, elem_id="watch-stop")
            stop_now = gr.Button("Stop now", variant="stop", visible=False, elem_id="watch-stop-now")
        advice = slot()
        with gr.Row(visible=False, elem_id="watch-curves") as curves:
            loss = _plot("Loss", "loss", LOSS_COLOURS, [0, None])
            accuracy = _plot("Accuracy on validation images", "accuracy", ACCURACY_COLOURS, [0, 1])
        curves_hint = slot()
        with gr.Accordion("What was decided, and why", open=True, visible=False) as notes_box:
            notes = slot(elem_id="watch-notes")
        with gr.Accordion("Log", open=False, elem_id="watch-log-box") as log_box:
            log = gr.Textbox(
                label=f"The last {LOG_LINES} lines",
                lines=14,
                max_lines=14,
                interactive=False,
                autoscroll=True,
                buttons=["copy"],
                elem_id="watch-log",
                elem_classes="tl-log",
            )
        link = gr.Textbox(
            label="Link to this run", interactive=False, max_lines=1, buttons=["copy"], elem_id="watch-link"
        )
    opened = gr.Textbox(visible="hidden", label="the run that is shown", elem_id="watch-opened")
    seen = gr.Textbox(visible="hidden", label="what is shown of it")
    timer = gr.Timer(TICK_SECONDS, active=False)
    return MonitorPanel(
        message, empty, body, head, outcome, to_results, resume, stop, stop_now, advice, curves, loss, accuracy,
        curves_hint, notes_box, notes, log_box, log, link, timer, opened, seen,
    )  # fmt: skip


def _plot(title: str, figure: str, colours: dict[str, str], limits: list[float | None]) -> gr.LinePlot:
    return gr.LinePlot(
        x="step",
        y=figure,
        color="part",
        color_map=colours,
        y_lim=limits,
        title=title,
        x_title="step",
        y_title=" ",
        color_title=" ",
        x_axis_format=",.0f",
        height=_PLOT_HEIGHT,
        min_width=300,
        show_label=False,
        label=title,
        elem_id=f"watch-{figure}",
    )


def bind(panel: MonitorPanel, session: Session) -> None:
    shown = [getattr(panel, field.name) for field in fields(panel) if field.name not in ("notice", "link", "log_box")]

    def placed(changes: dict[str, Any]) -> dict[Any, Any]:
        """What `look` says by name, as what handlers return."""
        ended = changes.pop("finished", None)
        values = {getattr(panel, name): value for name, value in changes.items()}
        return {**values, session.finished: ended} if ended else values

    def open_run(run_id: str | None, token: str | None) -> dict[Any, Any]:
        return look_again(run_id, Seen(), token) if run_id else placed(blank())

    def tick(run_id: str, seen: str, token: str | None) -> dict[Any, Any]:
        changes = look_again(run_id, Seen.parse(seen), token)
        # This may be shown late, after a button has ended the run and the clock: the next tick puts it right.
        return {panel.timer: gr.Timer(active=True), **changes} if panel.seen in changes else changes

    def look_again(run_id: str, seen: Seen, token: str | None) -> dict[Any, Any]:
        try:
            return placed(look(own_run(run_id, token), seen))
        except JobError as failure:  # nothing is left on the page that could go on asking
            return {**placed(blank()), panel.notice: notice_of_error(failure)}

    def stop(run_id: str, seen: str, token: str | None) -> dict[Any, Any]:
        run = own_run(run_id, token)
        request_stop(run)
        return placed(look(run, Seen.parse(seen)))

    def stop_now(run_id: str, seen: str, token: str | None) -> dict[Any, Any]:
        run = own_run(run_id, token)
        kill_run(run)
        return placed(look(run, Seen.parse(seen)))

    def resume(run_id: str, seen: str, token: str | None, signed: gr.OAuthToken | None) -> dict[Any, Any]:
        run = own_run(run_id, token)
        go_on(run, signed)
        return placed(look(run, Seen.parse(seen)))

    @told_to_client
    def watch(run_id: str, token: str = "") -> dict[str, Any]:
        return in_words(own_run(run_id, token))

    scratch = [panel.opened, panel.seen, session.token]
    outputs = [*shown, session.finished]
    view = partial(listen, notice=panel.notice, kind="view")
    view([session.ready.change, session.run.change], open_run, inputs=[session.run, session.token], outputs=shown)
    view(panel.timer.tick, tick, inputs=scratch, outputs=outputs, trigger_mode="once", asked=False)
    control = partial(listen, inputs=scratch, outputs=outputs, notice=panel.notice, kind="control")
    control(panel.stop.click, stop, api_name="stop_run")
    control(panel.stop_now.click, stop_now)
    control(panel.resume.click, resume)
    panel.log_box.expand(None, js=_JS_LOG_END, api_visibility="private")
    panel.opened.change(None, [panel.opened], [panel.link], js=_JS_ADDRESS, api_visibility="private")
    gradio_api(watch, api_name="watch", **limits_of("view"))


def look(run: Run, seen: Seen) -> dict[str, Any]:
    """What has changed about a run since a tab saw it, by the name of the component that shows it.

    `finished` is there, once, when the run has ended since. Reads what is new in the events and the end of the log.
    """
    if seen.run != run.id:
        seen = Seen(run=run.id, points=-1, notes=-1, log=-1)
    before = run.view()
    view = run.view(queue_of(read_settings())) if before.state == "queued" else before
    events = read_on(run).events
    changes: dict[str, Any] = {}
    head = run_head(view, events, time.time())
    points = sum(event["kind"] in CURVE_KINDS for event in events)
    notes = notes_of(events)
    now = Seen(
        run=run.id,
        state=view.state,
        points=points,
        notes=len(notes),
        log=size_of(run.log_path),
        head=zlib.crc32(head.encode()),
        has_report=run.report_path.is_file(),
    )
    if now.head != seen.head:
        changes["head"] = head
    if now.points != seen.points:
        changes |= _curves(events, points)
    if now.notes != seen.notes:
        changes |= {"notes_box": gr.Accordion(visible=bool(notes)), "notes": note_list(notes)}
    if now.log != seen.log:
        changes["log"] = run.log_tail(LOG_LINES)
    if (now.state, now.has_report) != (seen.state, seen.has_report):
        changes |= _controls(view, events, now.has_report)
    if now.state != seen.state or now.points != seen.points:
        changes["curves_hint"] = curves_explained(view, points >= _FEWEST_POINTS)
    if seen.state in GOING_STATES and now.state not in GOING_STATES:
        changes["finished"] = str(time.time_ns())
    if not seen.state:
        changes |= {"opened": run.id, "empty": gr.HTML(visible=False), "body": gr.Column(visible=True)}
    if now != seen:
        changes["seen"] = json.dumps(asdict(now))
    return changes


def blank() -> dict[str, Any]:
    """The panel with no run in it."""
    return {
        "empty": gr.HTML(visible=True),
        "body": gr.Column(visible=False),
        "timer": gr.Timer(active=False),
        "opened": "",
        "seen": "",
    }


def in_words(run: Run) -> dict[str, Any]:
    """{run_id, state, stage, progress, place, step, total, seconds_left, message}: where a run is."""
    view = run.view(queue_of(read_settings()))
    left = seconds_left(view, read_on(run).events)
    return {
        "run_id": view.run_id,
        "state": spoken_state(view),
        "stage": spoken_stage(view, left),
        "progress": share_done(view),
        "place": view.place,
        "step": view.step,
        "total": view.total,
        "seconds_left": left,
        "message": view.message,
    }


def _curves(events: list[dict[str, Any]], points: int) -> dict[str, Any]:
    if points < _FEWEST_POINTS:
        return {"curves": gr.Row(visible=False)}
    return {"curves": gr.Row(visible=True), "loss": loss_curve(events), "accuracy": accuracy_curve(events)}


def _controls(view: RunView, events: list[dict[str, Any]], has_report: bool) -> dict[str, Any]:
    live = view.state in LIVE_STATES
    return {
        "outcome": run_outcome(view, events, has_report),
        "to_results": gr.Button(visible=has_report),
        "resume": gr.Button(visible=view.state in RESUMABLE_STATES - {"queued"}),
        "stop": gr.Button(
            "Stopping …" if view.state == "stopping" else "Stop",
            visible=view.state in GOING_STATES,
            interactive=view.state != "stopping",
        ),
        "stop_now": gr.Button(visible=live),
        "advice": stopping_explained(view),
        "timer": gr.Timer(active=view.state in GOING_STATES),
    }
