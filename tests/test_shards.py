"""A pass divided among processes that torchrun started: the same figures, one run, one voice, and no hanging."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models import save_resnet
from patience import PATIENCE
from pictures import make_folder

from tl_core import api
from tl_core.launch import is_one_of_several, once
from tl_core.ml.feature_store import FeatureStore
from tl_core.parts import recall_parts
from tl_core.runs import Run, list_runs
from tl_core.settings import Settings

CLASSES = {str(hue): 25 for hue in range(8)}  # 13 batches of 16 or fewer; alike enough to be mistaken

# What each of the processes does: it counts the pictures that pass its own backbone.
PRELUDE = """
import json, os, signal, sys
import tl_core
from tl_core.cli import main
from tl_core.errors import ModelError
from tl_core.ml import backbone_pass
INDEX, PHOTOS, MODEL, OUT = int(os.environ["RANK"]), *sys.argv[1:]
OPTIONS = {"data": PHOTOS, "model": MODEL, "precision": "fp32"}
WORDS = ["train", "--data", PHOTOS, "--model", MODEL, "--precision", "fp32", "--json"]
passed, encode = [], backbone_pass.encode_batch

def count(model, head, pixels, precision):
    passed.append(len(pixels))
    return encode(model, head, pixels, precision)

backbone_pass.encode_batch = count
"""
WORK = """
def fail(*_):
    raise ModelError("no backbone of mine") if INDEX == 1 else AssertionError("only the second process fails")

backbone_pass.encode_batch = fail if INDEX == 1 else count
try:
    tl_core.train(**OPTIONS)
except ModelError as failure:
    failed = failure.message
backbone_pass.encode_batch = count
kept = sum(passed)
code = main(WORDS)
first = sum(passed)
again = tl_core.train(**OPTIONS, seed=1)
tuned = tl_core.train(**OPTIONS, strategy="full", max_steps=2, mirror="no")
code_of_nonsense = main([*WORDS, "--seed", "x"])
ranked = tl_core.rank(PHOTOS, models=[MODEL])["backbones"][0]["score"]
with open(f"{OUT}/{INDEX}.json", "w") as file:
    values = {"failed": failed, "kept": kept, "code": code, "first": first}
    values |= {"again": again["run_id"], "tuned": tuned["run_id"]}
    json.dump(values | {"later": sum(passed) - first, "nonsense": code_of_nonsense, "ranked": ranked}, file)
"""
DEATH = """
def die(*arguments):
    if len(passed) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return count(*arguments)

if INDEX == 1:
    backbone_pass.encode_batch = die
sys.exit(main(WORDS))
"""


def torchrun(folder: Path, script: str, *words: object) -> subprocess.CompletedProcess[str]:
    (folder / "work.py").write_text(PRELUDE + script, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, str(folder / "work.py"), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def features_of(run: Run, settings: Settings) -> np.ndarray:
    parts = recall_parts(run)
    (path,) = settings.features_dir.glob("*.sqlite")
    assert parts is not None
    with FeatureStore(settings.features_dir, path.stem, print) as store:
        vectors, missing = store.get_many(sorted(parts.train | parts.validation | parts.test))
    assert not missing
    return vectors


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, model = make_folder(tmp_path / "photos", CLASSES), save_resnet(tmp_path / "model").path
    done = torchrun(tmp_path, WORK, photos, model, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{index}.json").read_text()) for index in range(2))
    # What one of them could not do ends the training in both, and what was computed is not computed again.
    assert first["failed"] == second["failed"] == "no backbone of mine"
    assert [first["kept"], second["kept"]] == [104, 0]
    assert [first["first"] - first["kept"], second["first"]] == [48, 48]
    # A second training, and a ranking, find everything there, but for the few that measure a ranking's time.
    assert second["later"] == 0
    assert first["again"] == second["again"] and first["ranked"] == second["ranked"]
    assert first["code"] == second["code"] == 0 and first["nonsense"] == second["nonsense"] == 2
    # One run folder for each training, one answer, one sentence.
    failed, run, again, tuned = list_runs(settings)
    states = [each.view().state for each in (failed, run, again, tuned)]
    assert states == ["failed", "succeeded", "succeeded", "succeeded"]
    answer = json.loads(done.stdout.splitlines()[0])
    assert answer["run_id"] == run.id and again.id == first["again"]
    assert tuned.id == first["tuned"] == second["tuned"]  # by one of them, for what trains the backbone is not divided
    assert done.stderr.count("error: ") == 1
    assert "2 processes computed the features of 48 + 48 images" in run.log_path.read_text()
    assert answer["machine"]["processes"] == 2

    alone = replace(settings, home=tmp_path / "alone")
    monkeypatch.setenv("TL_HOME", str(alone.home))
    expected = api.train(data=str(photos), model=str(model), precision="fp32")
    report = run.report()
    assert report is not None and report["metrics"]["images"] == expected["metrics"]["images"] == 32
    assert report["metrics"]["confusion_matrix"] == expected["metrics"]["confusion_matrix"]
    for one, other in zip(report["predictions"], expected["predictions"], strict=True):
        assert {**one, "score": 0} == {**other, "score": 0}
        assert one["score"] == pytest.approx(other["score"], abs=2e-6)  # they are rounded to six digits
    (run_alone,) = list_runs(alone)
    np.testing.assert_allclose(features_of(run, settings), features_of(run_alone, alone), atol=1e-6)


@pytest.mark.slow
def test_a_process_that_dies_ends_all_with_a_sentence(tmp_path: Path, settings: Settings) -> None:
    photos, model = make_folder(tmp_path / "photos", CLASSES), save_resnet(tmp_path / "model").path
    done = torchrun(tmp_path, DEATH, photos, model, tmp_path)
    assert done.returncode != 0
    (run,) = list_runs(settings)
    assert run.view().state == "failed"
    message = run.view().message
    assert "one of the 2 processes that compute features together has ended" in message
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [f"error: {message}"]
    assert json.loads(done.stdout)["error"] == message
    assert api.resume(run.id)["metrics"]["images"]


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not is_one_of_several()
    monkeypatch.setenv("WORLD_SIZE", "4")  # what some clusters say to every program
    monkeypatch.setenv("RANK", "0")
    assert not is_one_of_several() and once(len)("four") == 4
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert is_one_of_several()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_one_of_several() and once(len)("four") == 4
