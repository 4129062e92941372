"""What an embedded backbone costs for a picture: measured once, and remembered for these weights."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tl_core
from tl_core.catalogue import BACKBONES_DIR, DEFAULT_MODEL, Backbone, embedded
from tl_core.ml.costs import cost_of
from tl_core.settings import Settings
from tl_core.terminal import lines_of_models


def test_it_is_measured_when_asked_for_and_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(model["seconds_per_image"] is None for model in tl_core.models())
    measured = {model["id"]: model["seconds_per_image"] for model in tl_core.models(measure=True)}
    assert {name for name, seconds in measured.items() if seconds is not None} == {model.id for model in embedded()}
    assert 0 < measured[DEFAULT_MODEL] < 10
    monkeypatch.setattr("tl_core.ml.speed.forward_seconds", lambda source: pytest.fail("measured again"))
    assert {model["id"]: model["seconds_per_image"] for model in tl_core.models()} == measured
    assert " ms  " in lines_of_models(tl_core.models(measure=True))[0]


def test_other_weights_are_measured_anew(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = replace(embedded()[0], path=shutil.copytree(BACKBONES_DIR / DEFAULT_MODEL, tmp_path / "copy"))
    monkeypatch.setattr("tl_core.ml.speed.forward_seconds", lambda source: 0.5)
    assert cost_of(copy, settings, measure=True) == 0.5
    monkeypatch.setattr("tl_core.ml.speed.forward_seconds", lambda source: 0.25)
    assert cost_of(copy, settings, measure=True) == 0.5
    assert copy.path is not None
    os.utime(copy.path / "model.safetensors", (1, 1))
    assert cost_of(copy, settings, measure=False) is None
    assert cost_of(copy, settings, measure=True) == 0.25


@pytest.fixture
def copied(tmp_path: Path) -> Backbone:
    return replace(embedded()[0], path=shutil.copytree(BACKBONES_DIR / DEFAULT_MODEL, tmp_path / "copy"))


def test_where_nothing_can_be_remembered_the_list_is_there_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TL_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr("tl_core.ml.speed.forward_seconds", lambda source: 0.5)
    assert tl_core.models(measure=True)[0]["seconds_per_image"] == 0.5
    assert tl_core.models()[0]["seconds_per_image"] is None


def test_a_damaged_backbone_has_no_cost_and_the_others_have_theirs(copied: Backbone, settings: Settings) -> None:
    assert copied.path is not None
    (copied.path / "model.safetensors").write_bytes(b"damaged")
    assert cost_of(copied, settings, measure=True) is None
    (copied.path / "model.safetensors").unlink()
    assert cost_of(copied, settings, measure=True) is None
    assert cost_of(embedded()[0], settings, measure=True) is not None


def test_another_number_of_threads_is_measured_anew(
    copied: Backbone, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_core.ml.speed.forward_seconds", lambda source: 0.5)
    assert cost_of(copied, settings, measure=True) == 0.5
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert cost_of(copied, settings, measure=False) is None


@pytest.mark.parametrize("value", ["0.5", "-1", "0", "NaN", "Infinity", '"fast"', "true", "[1]"])
def test_what_is_no_time_is_not_believed(
    value: str, copied: Backbone, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_core.ml.speed.forward_seconds", lambda source: 0.25)
    cost_of(copied, settings, measure=True)
    file = settings.cache_dir / "costs.json"
    file.write_text(file.read_text().replace("0.25", value))
    assert cost_of(copied, settings, measure=False) == (0.5 if value == "0.5" else None)


def test_what_another_process_measured_meanwhile_stays(
    copied: Backbone, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = settings.cache_dir / "costs.json"

    def measure(source: object) -> float:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"another": 0.125}')
        return 0.5

    monkeypatch.setattr("tl_core.ml.speed.forward_seconds", measure)
    assert cost_of(copied, settings, measure=True) == 0.5
    assert sorted(json.loads(file.read_text()).values()) == [0.125, 0.5]


def test_a_list_that_measures_nothing_loads_no_torch() -> None:
    code = "import sys, tl_core; tl_core.models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
