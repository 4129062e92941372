"""The run folder: creation, state, finding, exclusive work."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.files import read_json, write_json
from tl_core.recorder import Recorder
from tl_core.runs import LOCAL_OWNER, Run, create_run, derive_state, find_run, list_runs
from tl_core.settings import Settings

CONFIG = TrainConfig.parse({"data": "sample:digits", "name": "My run"})


def test_a_new_run_holds_exactly_its_configuration_and_owner(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    assert sorted(file.name for file in run.dir.iterdir()) == ["config.json", "owner.json"]
    assert run.config() == CONFIG
    assert run.id.endswith("-my-run")
    assert run.view().state == "queued"


def test_two_runs_of_one_second_have_two_folders(settings: Settings) -> None:
    assert len({create_run(CONFIG, settings).id for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("stored", "started", "alive", "stop", "state"),
    [
        (None, False, False, False, "queued"),
        (None, True, True, False, "starting"),
        (None, True, True, True, "stopping"),
        (None, True, False, False, "lost"),
        ("running", True, True, False, "running"),
        ("running", True, True, True, "stopping"),
        ("running", True, False, False, "lost"),
        ("running", True, False, True, "lost"),
    ],
)
def test_states_are_derived(stored: str | None, started: bool, alive: bool, stop: bool, state: str) -> None:
    assert derive_state(stored, started, alive, stop) == state  # type: ignore[arg-type]


def test_an_end_is_an_end_whatever_the_process_does() -> None:
    for stored, alive, stop in itertools.product(("succeeded", "stopped", "failed"), (True, False), (True, False)):
        assert derive_state(stored, True, alive, stop) == stored  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stored", "alive", "state"),
    [
        (None, False, "queued"),
        ("stopped", False, "queued"),
        ("failed", True, "queued"),  # the process that stored it is about to go
        ("running", False, "queued"),
        (None, True, "starting"),
    ],
)
def test_a_run_in_the_queue_is_queued_until_a_process_is_named(stored: str | None, alive: bool, state: str) -> None:
    assert derive_state(stored, True, alive, False, queued=True) == state  # type: ignore[arg-type]


def test_runs_are_listed_by_owner(settings: Settings) -> None:
    mine, theirs = create_run(CONFIG, settings), create_run(CONFIG, settings, "5f3a")
    assert (mine.owner(), theirs.owner()) == (LOCAL_OWNER, "5f3a")
    assert list_runs(settings) == [mine, theirs]
    assert list_runs(settings, "5f3a") == [theirs]
    (theirs.dir / "owner.json").write_text("{")
    assert list_runs(settings, "5f3a") == list_runs(settings, "other") == []


def test_a_view_says_what_is_trained_on_what_and_for_how_long(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    view = run.view()
    assert (view.strategy, view.model, view.data, view.seconds) == (CONFIG.strategy, CONFIG.model, CONFIG.data, 0)
    run.claim(os.getpid())
    write_json(run.dir / "status.json", {"state": "stopped", "started": 100.0, "updated": 107.0})
    assert run.view().seconds == 7
    run.claim(os.getpid())
    assert run.view().seconds == 7, "a process that goes on has not begun at 0"
    write_json(run.dir / "status.json", {"state": "failed", "started": 200.0, "updated": 203.0})
    assert run.view().seconds == 10


def test_only_new_events_are_read(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    assert run.events_since(0) == ([], 0)
    recorder = Recorder(run)
    recorder.event("note", text="日本")
    (first,), offset = run.events_since(0)
    assert first["text"] == "日本" and offset == (run.dir / "events.jsonl").stat().st_size
    recorder.event("note", text="b")
    with (run.dir / "events.jsonl").open("a") as stream:
        stream.write('{"time": 5, "ki')  # still being written
    (second,), after = run.events_since(offset)
    assert second["text"] == "b"
    with (run.dir / "events.jsonl").open("a") as stream:
        stream.write('nd": "end"}\n')
    assert run.events_since(after)[0] == [{"time": 5, "kind": "end"}]
    assert len(run.events()) == 3


def test_the_end_of_a_log_is_its_last_whole_lines(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    assert run.log_tail(5) == ""
    run.log_path.write_text("a\nb\nc\n")
    assert run.log_tail(2) == "b\nc"
    assert run.log_tail(9) == "a\nb\nc"
    assert run.log_tail(0) == ""
    run.log_path.write_text("".join(f"line {number} é\n" for number in range(50_000)), encoding="utf-8")
    found = run.log_tail(100_000).split("\n")
    assert found[-1] == "line 49999 é" and 1_000 < len(found) < 50_000
    assert all(line.startswith("line ") and line.endswith(" é") for line in found)


def test_a_recorder_tells_a_run_from_start_to_end(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    run.request_stop()
    recorder = Recorder(run)
    recorder.start()
    assert not run.stop_requested()
    recorder.stage("training", 10)
    recorder.progress(10, 10)
    view = run.view()
    assert (view.state, view.stage, view.step, view.total) == ("running", "training", 10, 10)
    run.request_stop()
    assert run.view().state == "stopping"
    recorder.finish("failed", error={"message": "no room", "details": ["a", "b"]})
    view = run.view()
    assert (view.state, view.message, view.details) == ("failed", "no room", ("a", "b"))
    events = [json.loads(line) for line in (run.dir / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["start", "stage", "end"]


def test_seconds_of_a_stage_add_up_over_processes_and_skip_the_time_between(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    lines = [
        {"time": 0, "kind": "start"},
        {"time": 1, "kind": "stage", "name": "training"},
        {"time": 4, "kind": "training"},
        {"time": 100, "kind": "start"},
        {"time": 110, "kind": "stage", "name": "training"},
        {"time": 115, "kind": "training"},
        {"time": 117, "kind": "stage", "name": "testing"},
        {"time": 130, "kind": "end"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.dir / "events.jsonl").write_text(text + '{"time": 131, "ki')
    assert run.seconds_in("training") == 3 + 7


def test_seconds_worked_leave_out_the_time_between_processes(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    times = [(0, "start"), (4, "stage"), (100, "start"), (110, "note"), (117, "end")]
    (run.dir / "events.jsonl").write_text("".join(json.dumps({"time": at, "kind": kind}) + "\n" for at, kind in times))
    assert run.seconds_worked() == 4 + 17


def test_a_line_cut_off_by_a_kill_hides_neither_the_others_nor_the_next_start(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    cut = '{"time": 5, "kind": "note", "text": "\u65e5'.encode()[:-1]  # within a character
    (run.dir / "events.jsonl").write_bytes(b'{"time": 0, "kind": "start"}\n' + cut)
    Recorder(run).start()
    assert [event["kind"] for event in run.events()] == ["start", "start"]
    assert run.seconds_worked() == 0


def test_an_event_may_hold_a_line_separator_and_a_diverged_loss(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    Recorder(run).event("training", loss=float("nan"), text="a\u2028b")
    (event,) = run.events()
    assert (event["loss"], event["text"]) == (None, "a\u2028b")
    assert "NaN" not in (run.dir / "events.jsonl").read_text()


def test_a_file_name_that_is_no_utf8_survives_status_events_and_log(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    odd = os.fsdecode(b"\xff.jpg")
    recorder = Recorder(run)
    recorder.start()
    recorder.note(odd)
    recorder.finish("failed", error={"message": odd, "details": []})
    assert run.view().message == odd
    assert [event["text"] for event in run.events() if event["kind"] == "note"] == [odd]
    assert "xff.jpg" in run.log_path.read_text() or "udcff.jpg" in run.log_path.read_text()
    for file in ("status.json", "events.jsonl", "log.txt"):
        (run.dir / file).read_text(encoding="utf-8")


def test_claiming_a_run_again_forgets_the_end_the_stop_and_the_litter_of_the_process_before(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    recorder = Recorder(run)
    recorder.start()
    run.request_stop()
    recorder.finish("stopped")
    (run.dir / ".status.json.1-a.part").write_text("{")
    run.claim(os.getpid())
    assert run.view().state == "starting"
    assert not list(run.dir.glob(".*"))
    run.request_stop()
    assert run.view().state == "stopping"
    recorder = Recorder(run)
    recorder.start()
    assert run.view().state == "stopping", "a stop asked for after the launch stands"


def test_a_process_that_dies_before_it_starts_to_work_is_lost_not_queued(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.claim(process.pid)
    assert run.view().state == "starting"
    process.communicate(b"\n")
    assert run.view().state == "lost"


def test_a_run_whose_process_is_gone_is_lost(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    Recorder(run).start()
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    write_json(run.dir / "process.json", {"pid": process.pid, "started": time.time()})
    assert run.view().state == "lost"


def test_a_process_id_used_again_by_another_process_is_not_ours(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    Recorder(run).start()
    started = psutil.Process().create_time()
    write_json(run.dir / "process.json", {"pid": os.getpid(), "started": started - 60})
    assert not run.is_alive()


def test_only_one_process_works_on_a_run(settings: Settings) -> None:
    run = create_run(CONFIG, settings)
    with run.hold(), pytest.raises(JobError, match="already being worked on"), Run(run.dir).hold():
        pass
    with run.hold():
        pass


def test_the_lock_of_a_killed_worker_is_waited_for_while_its_orphans_end(settings: Settings) -> None:
    fcntl = pytest.importorskip("fcntl")
    run = create_run(CONFIG, settings)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.claim(process.pid)
    process.communicate(b"\n")
    orphan = (run.dir / "lock").open("w")
    fcntl.flock(orphan, fcntl.LOCK_EX)
    threading.Timer(1.5, orphan.close).start()  # longer than the patience with a living worker
    with run.hold():
        assert orphan.closed


def test_last_is_the_run_made_last_whatever_its_name(settings: Settings) -> None:
    named = [TrainConfig.parse({"data": "sample:digits", "name": name}) for name in ("zebra", "mouse", "ant")]
    made = [create_run(config, settings) for config in named]
    assert list_runs(settings) == made
    assert find_run("last", settings) == made[-1]
    assert made[0].view().created <= made[-1].view().created


def test_runs_are_found_by_id_prefix_folder_and_last(settings: Settings) -> None:
    first = create_run(CONFIG, settings)
    second = create_run(CONFIG, settings)
    assert find_run(first.id, settings) == first
    assert find_run(second.id, settings) == second
    assert find_run(str(first.dir), settings) == first
    assert find_run("last", settings) == list_runs(settings)[-1]
    with pytest.raises(JobError, match="could mean 2 runs"):
        find_run(first.id[:8], settings)
    with pytest.raises(JobError, match="there is no run 'x'"):
        find_run("x", settings)


def test_no_run_at_all_says_how_to_start_one(settings: Settings) -> None:
    with pytest.raises(JobError, match="start one with `train`"):
        find_run("last", settings)


def test_a_home_that_cannot_be_written_is_a_sentence(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match=r"cannot write to .*TL_HOME"):
        create_run(CONFIG, dataclasses.replace(settings, home=tmp_path / "file"))


def test_a_full_disk_is_told_before_a_run_begins(settings: Settings) -> None:
    with pytest.raises(JobError, match="free space"):
        create_run(CONFIG, dataclasses.replace(settings, min_free_bytes=10**18))
    assert list_runs(settings) == []


def test_a_broken_json_file_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "missing.json") is None


def test_several_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(100):
            write_json(tmp_path / "a.json", {"number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert read_json(tmp_path / "a.json") is not None
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()  # a file cannot take its place
    with pytest.raises(OSError):
        write_json(tmp_path / "a.json", {})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("inf")})
    assert not list(tmp_path.iterdir())
