"""Datasets of the Hub: which of a repository's files are the images and tables, and what is refused."""

from pathlib import Path

import pytest
from hub_server import CLOSED, Hub, Repo, UseHub, commit, names

from tl_core.errors import DataError, HubError
from tl_core.hub import datasets, fetch_dataset
from tl_core.images.decode import IMAGE_KINDS
from tl_core.images.table_files import TABLE_EXTENSIONS
from tl_core.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def dataset(hub: Hub, files: dict[str, bytes], **more: object) -> str:
    hub.repos["datasets/owner/leaves"] = Repo(files, **more)  # type: ignore[arg-type]
    return "owner/leaves"


def test_parquet_of_the_main_branch_is_taken_by_split(hub: Hub, settings: Settings) -> None:
    files = {
        "README.md": b"# Leaves",
        "data/train-00000-of-00002.parquet": b"t0",
        "data/train-00001-of-00002.parquet": b"t1",
        "data/test-00000-of-00001-0a1b.parquet": b"e0",
    }
    fetched = fetch_dataset(
        dataset(hub, files, branches={"refs/convert/parquet": {"x/train/0.parquet": b""}}), settings
    )
    assert names(fetched.path) == {"train-00000.parquet", "train-00001.parquet", "test-00000.parquet"}
    assert [(fetched.path / f"train-0000{n}.parquet").read_bytes() for n in (0, 1)] == [b"t0", b"t1"]
    assert fetched.revision == commit(files)
    assert fetched.notes == ()
    assert not [line for line in hub.requests if "README" in line]


def test_otherwise_the_hubs_parquet_copy_is_taken(hub: Hub, settings: Settings) -> None:
    copy = {
        "default/train/0000.parquet": b"t0",
        "default/train/0001.parquet": b"t1",
        "default/validation/0000.parquet": b"v0",
    }
    files = {"images.tar": b"not read", "leaves.py": b"never run"}
    fetched = fetch_dataset(dataset(hub, files, branches={"refs/convert/parquet": copy}), settings)
    assert names(fetched.path) == {"train-00000.parquet", "train-00001.parquet", "validation-00000.parquet"}
    assert fetched.revision == commit(copy)


@pytest.mark.parametrize(("configs", "taken"), [(["large", "small"], "large"), (["big", "default"], "default")])
def test_of_several_configurations_one_is_taken_and_the_others_named(
    hub: Hub, settings: Settings, configs: list[str], taken: str
) -> None:
    copy = {f"{config}/train/0000.parquet": config.encode() for config in configs}
    fetched = fetch_dataset(dataset(hub, {"a.md": b""}, branches={"refs/convert/parquet": copy}), settings)
    assert (fetched.path / "train-00000.parquet").read_bytes() == taken.encode()
    other = next(config for config in configs if config != taken)
    assert fetched.notes == (f"owner/leaves has several configurations: {taken} was taken, {other} left out",)
    assert not [line for line in hub.requests if f"/{other}/" in line]


def test_a_parquet_copy_that_was_cut_off_is_noted(hub: Hub, settings: Settings) -> None:
    copy = {"default/partial-train/0000.parquet": b"t0"}
    fetched = fetch_dataset(dataset(hub, {"a.md": b""}, branches={"refs/convert/parquet": copy}), settings)
    assert names(fetched.path) == {"train-00000.parquet"}
    assert "ends after some gigabytes" in fetched.notes[0]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train.parquet", "test.parquet"], {"train-00000.parquet", "test-00000.parquet"}),
        (["plain_text/train-00000-of-00001.parquet"], {"train-00000.parquet"}),
        (["train/0000.parquet", "val/0000.parquet"], {"train-00000.parquet", "val-00000.parquet"}),
        (["0000.parquet"], {"train-00000.parquet"}),
    ],
)
def test_other_layouts_of_parquet(hub: Hub, settings: Settings, files: list[str], expected: set[str]) -> None:
    assert names(fetch_dataset(dataset(hub, dict.fromkeys(files, b"p")), settings).path) == expected


def test_a_repository_of_images_comes_as_a_folder(hub: Hub, settings: Settings) -> None:
    files = {"oak/1.JPG": b"1", "elm/2.png": b"2", "metadata.parquet": b"3", "README.md": b"", "load.py": b"raise"}
    assert names(fetch_dataset(dataset(hub, files), settings).path) == {"oak/1.JPG", "elm/2.png", "metadata.parquet"}


def test_a_repository_of_one_zip_comes_as_the_zip(hub: Hub, settings: Settings) -> None:
    fetched = fetch_dataset(dataset(hub, {"leaves.zip": b"PK", "README.md": b""}), settings)
    assert fetched.path.name == "leaves.zip"
    assert fetched.path.read_bytes() == b"PK"


def test_a_dataset_without_anything_usable_is_said(hub: Hub, settings: Settings) -> None:
    with pytest.raises(DataError, match="the dataset owner/leaves holds neither parquet files nor images nor a zip"):
        fetch_dataset(dataset(hub, {"leaves.tar": b""}), settings)


@pytest.mark.parametrize("name", ["data/train.parquet", "leaves.zip"])
def test_more_than_the_limit_is_refused_before_it_is_fetched(hub: Hub, tmp_path: Path, name: str) -> None:
    settings = Settings(home=tmp_path / "home", max_unpacked_bytes=10_000_000)
    with pytest.raises(DataError, match=r"has 0\.01 GB, more than the 0\.01 GB allowed; set TL_MAX_UNPACKED_BYTES"):
        fetch_dataset(dataset(hub, {name: bytes(10_000_001)}), settings)
    assert not [line for line in hub.requests if "resolve" in line]


def test_unknown_and_gated_datasets_are_said(hub: Hub, settings: Settings) -> None:
    with pytest.raises(HubError, match="the dataset owner/nothing is unknown at"):
        fetch_dataset("owner/nothing", settings)
    with pytest.raises(HubError, match="the dataset owner/leaves has no revision 'v9'"):
        fetch_dataset(dataset(hub, {"train.parquet": b""}), settings, "v9")
    with pytest.raises(HubError, match=f"gated: accept its terms at {hub.url}/datasets/owner/leaves"):
        fetch_dataset(dataset(hub, {"train.parquet": b"p"}, gated=True), settings)


@pytest.mark.parametrize(
    "repo",
    [
        {"files": {"data/train-00000-of-00001.parquet": b"t"}},
        {"files": {"a.md": b""}, "branches": {"refs/convert/parquet": {"default/train/0000.parquet": b"t"}}},
        {"files": {"oak/1.jpg": b"1"}},
    ],
    ids=["own parquet", "converted", "images"],
)
def test_a_cached_dataset_works_without_a_network(
    hub: Hub, use_hub: UseHub, settings: Settings, offline: Settings, repo: dict[str, dict[str, bytes]]
) -> None:
    fetched = fetch_dataset(dataset(hub, **repo), settings)
    use_hub(CLOSED)
    assert fetch_dataset("owner/leaves", offline) == fetched
    assert fetch_dataset("owner/leaves", settings) == fetched
    for path in fetched.path.rglob("*"):
        if path.is_file():
            path.resolve().unlink()  # the cache loses its files, and its links with them
            path.unlink(missing_ok=True)
    with pytest.raises(HubError, match="is not on this machine and HF_HUB_OFFLINE forbids"):
        fetch_dataset("owner/leaves", offline)


def test_the_hub_side_fetches_what_the_image_side_reads() -> None:
    assert {ending for endings in IMAGE_KINDS.values() for ending in endings} == datasets.IMAGE_SUFFIXES
    assert datasets.TABLE_SUFFIXES == TABLE_EXTENSIONS
