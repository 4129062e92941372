"""What a machine that others use too allows one person, and that it is said before."""

from pathlib import Path

import pytest

from tl_core import api, limits
from tl_core.config import TrainConfig
from tl_core.errors import ConfigError, JobError
from tl_core.files import write_json
from tl_core.runs import Run, create_run
from tl_core.settings import Settings, read_settings
from tl_core.ui.house_rules import too_many_images, what_is_allowed, what_is_lost, who_makes_room
from tl_core.ui.session import own_runs, owner_of
from tl_core.ui.starting import begin, configure

MINE = "m" * 43


def test_of_one_person_only_so_many_runs_are_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    monkeypatch.setenv("TL_KEPT_RUNS", "3")
    monkeypatch.setattr(api, "train_in_background", lambda config, **more: ended(config, more["owner"]))
    config = TrainConfig.parse({"data": "sample:shapes"})
    first, second, third = (begin(named(config, each), MINE) for each in ("first", "second", "third"))
    (settings.runs_dir / second / "published.json").write_text("[]")  # it is safe on the Hub
    waiting = create_run(named(config, "waits").model_copy(update={"model": first}), settings, owner_of(MINE))
    waiting.join_queue()
    told_of = who_makes_room(own_runs(MINE), read_settings())
    assert second in told_of and third in told_of and first not in told_of  # the one that waits begins from it
    last = begin(named(config, "fourth"), MINE)
    assert {each.id for each in own_runs(MINE)} == {first, waiting.id, last}
    assert run.dir.is_dir() and who_makes_room([], read_settings()) == ""  # nobody else's
    assert not (settings.runs_dir / third).exists()
    monkeypatch.setenv("TL_KEPT_RUNS", "1")
    monkeypatch.setattr(limits, "LIVE_STATES", frozenset({"succeeded"}))
    with pytest.raises(JobError, match=r"you have 3 runs, 3 of which wait or work.*TL_KEPT_RUNS"):
        begin(named(config, "fifth"), MINE)
    assert len(own_runs(MINE)) == 3


def named(config: TrainConfig, name: str) -> TrainConfig:
    return config.model_copy(update={"name": name})


def ended(config: TrainConfig, owner: str) -> Run:
    run = create_run(config, read_settings(), owner)
    write_json(run.dir / "status.json", {"state": "succeeded"})
    return run


def test_what_is_allowed_is_said_before_and_nothing_on_a_computer_of_ones_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = read_settings()
    assert what_is_allowed(own) == what_is_lost(own) == too_many_images(10**9, own) == who_makes_room([], own) == ""
    monkeypatch.setenv("SPACE_ID", "somebody/app")
    space = read_settings()
    assert "10,000 images" in what_is_allowed(space) and "30 minutes" in what_is_allowed(space)
    assert "10 runs kept" in what_is_allowed(space)
    assert "“Share”" in what_is_lost(space) and "“Results”" in what_is_lost(space)
    assert too_many_images(10_000, space) == "" and "10,001 images" in too_many_images(10_001, space)


def test_a_run_takes_no_longer_than_one_person_may(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/app")
    values = {"model": "tiny-resnet", "strategy": "full"}
    assert configure(values, "sample:shapes", MINE).minutes == 30
    with pytest.raises(ConfigError, match="may take 30 on this shared machine") as refused:
        configure({**values, "minutes": "45"}, "sample:shapes", MINE)
    assert "--minutes" not in refused.value.message
