"""Watching a run and listing runs: what is read, what is said, whose it is."""

import asyncio
import html
import json
import subprocess
import sys
from typing import Any

import gradio as gr
import psutil
import pytest

from tl_core.config import TrainConfig
from tl_core.jobs import queue_of
from tl_core.recorder import Recorder
from tl_core.runs import Run, RunView, create_run
from tl_core.settings import Settings
from tl_core.ui import progress
from tl_core.ui.panels import monitor, runs
from tl_core.ui.panels.monitor import Seen, look
from tl_core.ui.plots import MAX_POINTS, accuracy_curve, loss_curve
from tl_core.ui.session import build_session, owner_of

HOSTILE = "<img src=x onerror=alert(1)>"
METRICS = {"split": "test", "images": 54, "accuracy": 0.75, "accuracy_ci": [0.62, 0.85], "macro_f1": 0.7}
TOKENS = ("a" * 43, "b" * 43)


@pytest.fixture
def handlers() -> dict[str, Any]:
    """The handlers of the panel by name, as the page calls them."""

    async def build() -> gr.Blocks:  # outside of a loop gradio makes loops and never closes them
        with gr.Blocks(analytics_enabled=False) as app:
            session = build_session()
            monitor.bind(monitor.build(), session)
        return app

    return {
        name: function.fn
        for function in asyncio.run(build()).fns.values()
        if function.fn is not None
        for name in (function.api_name or "", function.fn.__name__)
    }


def make_run(settings: Settings, **options: Any) -> Run:
    owner = options.pop("owner", "local")
    return create_run(TrainConfig.parse({"data": "sample:shapes", "strategy": "full", **options}), settings, owner)


def make_worker(run: Run) -> Recorder:
    """This process as the run's worker."""
    recorder = Recorder(run)
    recorder.start()
    return recorder


def make_view(**values: Any) -> RunView:
    given: dict[str, Any] = {
        "run_id": "r",
        "state": "running",
        "stage": "training",
        "step": 0,
        "total": 0,
        "name": None,
        "strategy": "full",
        "model": "tiny-resnet",
        "data": "sample:shapes",
        "place": 0,
        "created": 0.0,
        "updated": 0.0,
        "seconds": 0.0,
        "message": "",
        "details": (),
        "metrics": None,
    }
    return RunView(**{**given, **values})


def seen_after(changes: dict[str, Any], before: Seen | None = None) -> Seen:
    return Seen.parse(changes["seen"]) if "seen" in changes else before or Seen()


def is_visible(update: Any) -> bool:
    return bool(update.visible)


def test_a_waiting_run_says_its_place_and_leaves_when_stopped(settings: Settings, handlers: dict[str, Any]) -> None:
    first, second = make_run(settings, name="one"), make_run(settings, name="two")
    first.join_queue()
    second.join_queue()
    changes = look(second, Seen())
    assert "2nd in the queue" in changes["head"]
    assert changes["timer"].active, "its turn is noticed"
    assert is_visible(changes["stop"]) and not is_visible(changes["stop_now"]) and not is_visible(changes["resume"])
    assert "takes it out of the queue" in changes["advice"]

    answer = handlers["stop_run"](second.id, changes["seen"], None)
    by_id = {component.elem_id: value for component, value in answer.items()}
    assert ">stopped<" in by_id["watch-head"]
    assert queue_of(settings) == [first.id]


def test_a_live_run_is_shown_with_stage_curves_notes_and_log(settings: Settings) -> None:
    run = make_run(settings, name=HOSTILE)
    worker = make_worker(run)
    worker.note(f"decided for {HOSTILE}")
    worker.stage("training", 400)
    for step in (10, 20, 30):
        worker.event("training", step=step, loss=2.0 - step / 30)
    worker.event("validation", step=30, loss=1.0, accuracy=0.5)
    worker.progress(40, 400)
    run.log_path.write_text("\n".join([f"line {i}" for i in range(300)] + [HOSTILE]) + "\n")
    worker._write_status()

    changes = look(run, Seen())
    assert html.escape(HOSTILE) in changes["head"] and HOSTILE not in changes["head"]
    assert html.escape(HOSTILE) in changes["notes"] and HOSTILE not in changes["notes"]
    assert "Training, 40 of 400" in changes["head"] and 'aria-valuenow="10"' in changes["head"]
    assert "50.0%, at step 30" in changes["head"]
    assert list(changes["loss"]["loss"]) == pytest.approx([5 / 3, 4 / 3, 1.0, 1.0])
    assert list(changes["accuracy"]["accuracy"]) == [0.5]
    assert changes["log"].splitlines()[-1] == HOSTILE, "text in a text box, as it is"
    assert len(changes["log"].splitlines()) == monitor.LOG_LINES
    assert is_visible(changes["stop"]) and is_visible(changes["stop_now"])
    assert changes["opened"] == run.id


def test_a_tick_sends_only_what_is_new(settings: Settings) -> None:
    run = make_run(settings)
    worker = make_worker(run)
    worker.stage("training", 100)
    for step in (1, 2, 3):
        worker.event("training", step=step, loss=1.0)
    seen = seen_after(look(run, Seen()))

    assert set(look(run, seen)) <= {"head", "seen"}, "only how long it has worked may differ"
    worker.say("a line")
    assert set(look(run, seen)) - {"head", "seen"} == {"log"}
    worker.event("training", step=4, loss=0.5)
    assert set(look(run, seen)) - {"head", "seen"} == {"log", "curves", "loss", "accuracy", "curves_hint"}


def test_a_tick_leaves_what_a_button_has_said_and_keeps_the_clock_going(
    settings: Settings, handlers: dict[str, Any]
) -> None:
    run = make_run(settings)
    worker = make_worker(run)
    seen = look(run, Seen())["seen"]
    worker.say("a line")
    answer = handlers["tick"](run.id, seen, None)
    assert [value.active for part, value in answer.items() if isinstance(part, gr.Timer)] == [True]
    assert gr.skip() in answer.values()

    worker.finish("succeeded", metrics=METRICS)
    answer = handlers["tick"](run.id, seen, None)
    assert [value.active for part, value in answer.items() if isinstance(part, gr.Timer)] == [False]
    seen = next(value for part, value in answer.items() if part.label == "what is shown of it")
    assert list(handlers["tick"](run.id, seen, None).values()) == [gr.skip()]  # Gradio refuses an answer of nothing


def test_a_run_that_ends_is_told_of_once_and_the_clock_stops(settings: Settings) -> None:
    run = make_run(settings)
    worker = make_worker(run)
    seen = seen_after(look(run, Seen()))
    run.report_path.write_text("{}")
    worker.finish("succeeded", metrics=METRICS)

    changes = look(run, seen)
    assert changes["finished"]
    assert not changes["timer"].active
    assert "75.0% of 54 test images right" in changes["outcome"]
    assert is_visible(changes["to_results"]) and not is_visible(changes["stop"]) and not is_visible(changes["resume"])
    assert "finished" not in look(run, seen_after(changes))
    assert "finished" not in look(run, Seen()), "a run that is opened after its end does not end again"


def test_a_stop_shows_at_once(settings: Settings, handlers: dict[str, Any]) -> None:
    run = make_run(settings)
    make_worker(run)
    seen = look(run, Seen())["seen"]
    by_id = {component.elem_id: value for component, value in handlers["stop_run"](run.id, seen, None).items()}
    assert run.stop_requested()
    assert ">stopping<" in by_id["watch-head"]
    assert not by_id["watch-stop"].interactive
    assert is_visible(by_id["watch-stop-now"])


def test_a_killed_worker_is_noticed_at_the_next_look(settings: Settings) -> None:
    run = make_run(settings)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run.claim(process.pid)
        seen = seen_after(look(run, Seen()))
        assert seen.state == "starting"
        process.kill()
        process.wait()
        changes = look(run, seen)
    assert "lost" in changes["head"]
    assert "gone without a last word" in changes["outcome"] and "Resume" in changes["outcome"]
    assert is_visible(changes["resume"]) and not changes["timer"].active and changes["finished"]


def test_a_failure_is_told_with_its_details(settings: Settings) -> None:
    run = make_run(settings)
    make_worker(run).finish("failed", error={"message": f"no such class {HOSTILE}", "details": ["a", HOSTILE]})
    changes = look(run, Seen())
    assert HOSTILE not in changes["outcome"] and changes["outcome"].count(html.escape(HOSTILE)) == 2
    assert is_visible(changes["resume"])


def test_a_stopped_run_says_where_it_goes_on(settings: Settings) -> None:
    run = make_run(settings)
    worker = make_worker(run)
    worker.event("checkpoint", step=1200)
    worker.stage("training the control")
    worker.event("checkpoint", step=5000)
    worker.finish("stopped")
    assert "goes on from step 1,200" in look(run, Seen())["outcome"]


def test_a_frozen_run_says_why_it_has_no_curves(settings: Settings) -> None:
    run = make_run(settings, strategy="frozen")
    worker = make_worker(run)
    worker.stage("computing features", 2000)
    worker.progress(2000, 2000)
    changes = look(run, Seen())
    assert not is_visible(changes["curves"]) and "in one go" in changes["curves_hint"]
    assert "Computing features, 2,000 of 2,000" in changes["head"]


@pytest.mark.skipif(not hasattr(psutil.Process, "io_counters") or sys.platform != "linux", reason="counts bytes read")
def test_a_tick_on_a_long_run_reads_little(settings: Settings) -> None:
    run = make_run(settings)
    worker = make_worker(run)
    worker.stage("training", 20_000)
    lines = [
        json.dumps({"time": i, "kind": "training", "step": i, "loss": 1.0, "learning_rate": 0.1}) for i in range(20_000)
    ]
    with (run.dir / "events.jsonl").open("a") as stream:
        stream.write("\n".join(lines) + "\n")
    run.log_path.write_text("a line of a log\n" * (5 * 2**20 // 16))
    seen = seen_after(look(run, Seen()))

    def bytes_read() -> int:
        return int(psutil.Process().io_counters().read_chars)

    few = 64 * 1024
    before = bytes_read()
    look(run, seen)
    assert bytes_read() - before < few, "nothing new: neither the events nor the log is read again"
    worker.event("training", step=20_001, loss=0.5)
    worker.say("a line")
    before = bytes_read()
    changes = look(run, seen)
    assert bytes_read() - before < 3 * few, "the new event, and the end of the log"
    assert changes["log"].endswith("a line") and changes["loss"]["loss"].iloc[-1] == 0.5
    assert len(changes["loss"]) <= MAX_POINTS


def test_another_run_in_a_folder_of_the_same_name_is_read_from_its_beginning(settings: Settings) -> None:
    run = make_run(settings)
    worker = make_worker(run)
    for _ in range(5):
        worker.note("before")
    look(run, Seen())
    (run.dir / "events.jsonl").unlink()
    assert "before" not in look(run, Seen())["notes"]
    worker.note("after")
    assert "after" in look(run, Seen())["notes"]


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "[" * 100_000, '{"run": 1}', '{"run": "r", "points": 1e999}', json.dumps({"state": HOSTILE})],
)
def test_what_a_browser_says_it_has_seen_is_not_trusted(text: str) -> None:
    assert Seen.parse(text) == Seen()


def test_a_resumed_training_draws_over_what_was_lost() -> None:
    figures = [(10, 3.0), (20, 2.0), (30, 1.0), (20, 2.5), (30, 1.5)]
    events: list[dict[str, Any]] = [{"kind": "training", "step": step, "loss": loss} for step, loss in figures]
    events.insert(3, {"kind": "start"})
    curve = loss_curve(events)
    assert list(zip(curve["step"], curve["loss"], strict=True)) == [(10, 3.0), (20, 2.5), (30, 1.5)]


def test_the_control_has_curves_of_its_own() -> None:
    look_at = {"kind": "validation", "loss": 1.0, "accuracy": 0.9, "step": 10}
    events = [look_at, {"kind": "stage", "name": "training the control"}, {**look_at, "accuracy": 0.95}]
    assert list(accuracy_curve(events)["part"]) == ["validation", "control"]
    assert list(loss_curve(events)["part"]) == ["validation", "control, validation"]
    assert progress.best_accuracy(events) == (0.9, 10)


def test_a_loss_that_is_no_number_is_left_out_and_long_curves_are_thinned() -> None:
    events: list[dict[str, Any]] = [{"kind": "training", "step": step, "loss": 1.0} for step in range(12_345)]
    events.append({"kind": "training", "step": 20_000, "loss": None})
    curve = loss_curve(events)
    assert len(curve) <= MAX_POINTS and curve["step"].iloc[-1] == 12_344


def test_the_time_left_follows_the_latest_events_of_this_process() -> None:
    start, stage = {"time": 0, "kind": "start"}, {"time": 10, "kind": "stage", "name": "training"}
    steps = [{"time": 100 + i, "kind": "training", "step": 10 * i} for i in range(1, 20)]
    view = make_view(step=200, total=300, updated=120.0)
    assert progress.seconds_left(view, [start, stage, *steps]) == pytest.approx(10)
    assert progress.seconds_left(make_view(step=5, total=105, updated=20.0), [start, stage]) == pytest.approx(200)
    resumed = [start, stage, start, stage]
    assert progress.seconds_left(make_view(step=205, total=305, updated=20.0), resumed) is None, (
        "it began at a checkpoint"
    )
    features = {"time": 10, "kind": "stage", "name": "computing features"}
    view = make_view(stage="computing features", step=100, total=200, updated=20.0)
    assert progress.seconds_left(view, [start, start, features]) == pytest.approx(10)
    assert progress.seconds_left(make_view(total=0, step=7), [start, stage]) is None


def test_words() -> None:
    assert [progress.ordinal(n) for n in (1, 2, 3, 4, 11, 12, 21, 111, 1002)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "111th", "1,002nd",
    ]  # fmt: skip
    assert [progress.spoken_ago(s) for s in (-5, 59, 60, 7300, 90_000)] == [
        "just now", "just now", "1 minute ago", "2 hours ago", "1 day ago",
    ]  # fmt: skip
    assert progress.spoken_place("sample:shapes") == "sample:shapes"
    assert progress.spoken_place("google/vit-base") == "google/vit-base"
    assert progress.spoken_place("/home/me/photos") == "photos"
    assert progress.spoken_place("/home/me/drafts/draft-0123/images-ab.jsonl") == "your own images"
    assert progress.notes_of([{"kind": "note", "text": "a"}] * 2) == ["a"], "a resumed run decides the same again"


def test_runs_are_listed_newest_first_and_the_chosen_one_is_marked(settings: Settings) -> None:
    assert "no runs yet" in runs.list_own("", None)
    old, new = make_run(settings, name="old"), make_run(settings, name=HOSTILE)
    make_worker(old).finish("succeeded", metrics=METRICS)
    listed = runs.list_own(old.id, None)
    assert HOSTILE not in listed
    assert listed.index(new.id) < listed.index(old.id)
    assert f'data-pick="{old.id}" aria-pressed="true"' in listed and "75.0% right" in listed


def test_somebody_elses_run_is_as_good_as_none(
    settings: Settings, handlers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    mine, other = TOKENS
    theirs = make_run(settings, name="secret name", owner=owner_of(other))
    make_worker(theirs)
    absent = f"{theirs.id}x"
    for handler in ("tick", "stop_run", "stop_now", "resume", "open_run"):
        for run_id in (theirs.id, absent):
            asked = {"open_run": (run_id, mine), "resume": (run_id, "", mine, None)}
            told = handlers[handler](*asked.get(handler, (run_id, "", mine)))
            words = [html.unescape(value) for value in told.values() if isinstance(value, str) and value]
            assert len(words) == 1 and f"There is no run '{run_id}' of yours." in words[0]
    assert not theirs.stop_requested()
    opened = {component.elem_id: value for component, value in handlers["open_run"](theirs.id, mine).items()}
    assert not is_visible(opened["watch-body"]) and "watch-head" not in opened
    with pytest.raises(gr.Error, match="there is no run"):
        handlers["watch"](theirs.id, mine)
    assert handlers["watch"](theirs.id, other)["state"] == "running"
    assert "secret" not in runs.list_own("", mine) and "secret name" in runs.list_own("", other)


def test_the_run_in_words(settings: Settings, handlers: dict[str, Any]) -> None:
    run = make_run(settings)
    worker = make_worker(run)
    worker.stage("computing features", 2000)
    worker.progress(2000, 2000)
    words = handlers["watch"](run.id)
    assert words["state"] == "running" and words["stage"] == "computing features, 2,000 of 2,000"
    assert words["progress"] == 1.0 and words["run_id"] == run.id
    json.dumps(words)
