"""Whose a run is: found by its id alone, whatever a client sends for one."""

from pathlib import Path

import pytest

from tl_core.config import TrainConfig
from tl_core.errors import DataError, JobError
from tl_core.runs import LOCAL_OWNER, create_run
from tl_core.settings import read_settings
from tl_core.ui.session import own_draft, own_run, own_runs, owner_of

MINE, THEIRS = "a" * 43, "b" * 43


def test_a_run_is_found_by_its_owner_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    config = TrainConfig.parse({"data": "sample:digits"})
    settings = read_settings()
    mine, theirs, local = (create_run(config, settings, who) for who in (owner_of(MINE), owner_of(THEIRS), LOCAL_OWNER))
    assert own_run(mine.id, MINE) == mine and own_runs(MINE) == [mine]
    sentences = set()
    for run in (theirs, local):
        with pytest.raises(JobError) as refused:
            own_run(run.id, MINE)
        sentences.add(refused.value.message.replace(run.id, "ID"))
    assert sentences == {"there is no run 'ID' of yours"}
    (mine.dir / "owner.json").write_text("{")  # nobody's, then
    with pytest.raises(JobError):
        own_run(mine.id, MINE)
    monkeypatch.setenv("TL_SHARED", "0")
    assert own_run(theirs.id, None) == theirs


@pytest.mark.parametrize(
    "sent", ["..", ".", "../runs", "x/y", "a\0b", "x" * 5000, "\udcff", "nothing", {"id": 1}, [1], 7]
)
def test_what_is_no_id_is_refused_in_a_sentence(home: Path, sent: object) -> None:
    create_run(TrainConfig.parse({"data": "sample:digits"}), read_settings())
    with pytest.raises(JobError) as refused:
        own_run(sent, None)  # type: ignore[arg-type]
    assert "there is no run" in refused.value.message and len(refused.value.message) < 1000
    with pytest.raises(DataError):
        own_draft(sent, None)  # type: ignore[arg-type]


def test_a_folder_beside_the_runs_is_no_run(home: Path) -> None:
    run = create_run(TrainConfig.parse({"data": "sample:digits"}), read_settings())
    run.dir.rename(home / "moved")
    for sent in ("../moved", str(home / "moved"), run.id):
        with pytest.raises(JobError):
            own_run(sent, None)
