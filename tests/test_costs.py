"""What an embedded backbone costs for a picture: measured once, and remembered for these weights."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tl_core
from tl_core.catalogue import BACKBONES_DIR, DEFAULT_MODEL, embedded
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
