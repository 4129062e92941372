"""Threads that compute side by side: what each has of torch's, what is left as it was, the same features."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread, get_ident

import numpy as np
import pytest
import torch
from models import SIDE, save_resnet, save_vit
from patience import PATIENCE
from pictures import make_folder

from tl_core.config import TrainConfig
from tl_core.errors import DataError
from tl_core.ml import backbone_pass, inference
from tl_core.ml.backbone import linear_head, load_backbone
from tl_core.ml.backbone_pass import backbone_features, view_features
from tl_core.ml.inference import load_predictor
from tl_core.ml.machine import ITEMS_AHEAD, computing_side_by_side, map_side_by_side
from tl_core.ml.precision import PLAIN
from tl_core.ml.views import ViewReader, views_of
from tl_core.recorder import Recorder
from tl_core.runs import create_run
from tl_core.settings import read_settings
from tl_core.sources import ModelSource, open_data

MAX_PIXELS = 10_000


def threads_of_a_new_one() -> int:
    found: Future[int] = Future()
    Thread(target=lambda: found.set_result(torch.get_num_threads())).start()
    return found.result(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("whole", "threads", "each"), [(4, 2, [2, 2]), (5, 3, [2, 2, 1]), (2, 3, [1, 1, 1]), (1, 1, [1])]
)
def test_threads_are_divided_and_given_back(whole: int, threads: int, each: list[int]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(whole)
    try:
        with computing_side_by_side(threads) as pool:
            together = Barrier(threads, timeout=PATIENCE)  # none of them answers twice
            shares = [pool.submit(lambda: together.wait() * 0 + torch.get_num_threads()) for _ in range(threads)]
            assert sorted((share.result() for share in shares), reverse=True) == each
            assert torch.get_num_threads() == whole and threads_of_a_new_one() == whole
        assert torch.get_num_threads() == whole and threads_of_a_new_one() == whole
    finally:
        torch.set_num_threads(before)


def test_answers_come_in_order_from_threads_that_work_at_a_time_and_not_far_ahead() -> None:
    both, begun, workers = Barrier(2, timeout=PATIENCE), [], set()

    def work(item: int) -> int:
        begun.append(item)
        workers.add(get_ident())
        both.wait()  # two are at work at any time
        return item * item

    with closing(map_side_by_side(work, range(100), 2)) as answers:
        assert [next(answers) for _ in range(4)] == [0, 1, 4, 9]
        assert max(begun) < 4 + 2 + ITEMS_AHEAD
        both.abort()  # whoever works still is let go
    assert len(workers) == 2 and get_ident() not in workers


def test_one_thread_is_the_callers_own() -> None:
    assert list(map_side_by_side(lambda _: get_ident(), range(3), 1)) == [get_ident()] * 3
    assert list(map_side_by_side(lambda _: get_ident(), [], 1)) == []


def test_a_failure_comes_when_its_turn_has() -> None:
    answers = map_side_by_side(lambda item: 1 / (3 - item), range(10), 2)
    assert [next(answers) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(answers)


def test_a_model_answers_many_files_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 14, "b": 15})
    files = sorted(photos.rglob("*.png"))
    files[9].write_bytes(b"not a picture")
    predictor = load_predictor(save_resnet(tmp_path / "model"))
    answers = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(inference, "threads_side_by_side", lambda threads=threads: threads)
        answers.append(list(predictor.answer(files, MAX_PIXELS)))
        assert [file for file, _ in answers[-1]] == files
    for row, others in enumerate(zip(*answers, strict=True)):
        rows = [answer for _, answer in others]
        assert isinstance(rows[0], DataError) == (row == 9)
        if row == 9:
            assert all(isinstance(answer, DataError) for answer in rows)
        else:
            np.testing.assert_allclose(rows[1:], [rows[0]] * 2, atol=1e-6)


@pytest.mark.parametrize("save", [save_resnet, save_vit])
def test_features_do_not_depend_on_how_many_threads_compute_them(
    save: Callable[[Path], ModelSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 20, "b": 21})
    source = save(tmp_path / "model")
    computed = []
    for threads in (1, 2, 3):
        monkeypatch.setenv("TL_HOME", str(tmp_path / f"home {threads}"))
        monkeypatch.setattr(backbone_pass, "threads_side_by_side", lambda threads=threads: threads)
        settings = read_settings()
        run = create_run(TrainConfig.parse({"data": str(photos)}), settings)
        pictures = open_data(str(photos), settings).pictures
        backbone = load_backbone(source, ["a", "b"])
        head, recorder = linear_head(backbone), Recorder(run)
        features = backbone_features(backbone, head, pictures, PLAIN, settings, recorder)
        views = view_features(backbone, head, pictures, 6, PLAIN, settings, recorder, mirror=True)
        computed.append(np.concatenate([features[:, None], views], axis=1))
    for features in computed[1:]:
        np.testing.assert_allclose(features, computed[0], rtol=1e-4, atol=1e-5)


def test_versions_of_pictures_are_the_same_in_any_thread(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 8, "b": 8})
    pictures = open_data(str(photos), read_settings()).pictures
    processor = load_backbone(save_resnet(tmp_path / "model"), ["a", "b"]).processor
    reader = ViewReader(processor, (SIDE, SIDE), MAX_PIXELS, mirror=True)
    batches = [[reader.read(view) for view in views_of([picture], 8)] for picture in pictures]
    expected = [reader.vary(batch) for batch in batches]
    before = torch.random.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(map(torch.equal, pool.map(reader.vary, batches), expected))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_thread_that_cannot_be_started_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start, started = torch.get_num_threads(), Thread.start, []

    def start_one(thread: Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start"), computing_side_by_side(3):
        pytest.fail("began")
    assert torch.get_num_threads() == before
