"""The feature store under kills, rivals, damage and full disks; the one pass over what it does not hold."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from tl_core.errors import JobError, ModelError
from tl_core.ml.feature_store import FeatureStore
from tl_core.ml.features import compute_features, encode_reading_ahead


def no_warning(message):
    raise AssertionError(message)


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path, "key", no_warning) as store:
        yield store


def vectors(count, width=4, first=0):
    return np.arange(first * width, (first + count) * width, dtype=np.float32).reshape(count, width)


def test_vectors_come_back_exactly_and_in_the_order_asked_for(store):
    values = np.random.default_rng(0).normal(size=(1300, 16)).astype(np.float32)
    digests = [f"{number:064x}" for number in range(1300)]
    store.put_many(digests, values)
    order = np.random.default_rng(1).permutation(1300)
    found, missing = store.get_many([digests[place] for place in order])
    assert missing == []
    np.testing.assert_array_equal(found, values[order])


def test_missing_digests_are_named_once_and_their_rows_are_zero(store):
    store.put_many(["a", "b"], vectors(2, first=1))
    found, missing = store.get_many(["x", "b", "x", "y"])
    assert missing == ["x", "y"]
    np.testing.assert_array_equal(found, [[0] * 4, [8, 9, 10, 11], [0] * 4, [0] * 4])


def test_an_empty_store_and_an_empty_question(store):
    found, missing = store.get_many(["a"])
    assert found.shape == (1, 0)
    assert missing == ["a"]
    assert store.get_many([])[1] == []


def test_keys_do_not_share_vectors(tmp_path, store):
    store.put_many(["a"], vectors(1))
    with FeatureStore(tmp_path, "other", no_warning) as other:
        assert other.get_many(["a"])[1] == ["a"]


def test_what_is_stored_stays_when_the_same_digest_comes_again(store):
    store.put_many(["a"], vectors(1))
    store.put_many(["a", "b"], vectors(2, first=5))
    np.testing.assert_array_equal(store.get_many(["a", "b"])[0], [[0, 1, 2, 3], [24, 25, 26, 27]])


WRITER = """
import sys, numpy
from pathlib import Path
from tl_core.ml.feature_store import FeatureStore
store = FeatureStore(Path(sys.argv[1]), "key", print)
for batch in range(int(sys.argv[3])):
    store.put_many([f"{sys.argv[2]}-{batch}-{row}" for row in range(8)], numpy.full((8, 256), batch, numpy.float32))
    print(batch, flush=True)
"""


def write_batches(folder, name, batches):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(batches)], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_process_loses_at_most_the_batch_in_flight(tmp_path):
    with write_batches(tmp_path, "w", 10_000_000) as process:
        for line in process.stdout:
            if int(line) == 20:
                process.kill()
                break
        reported = int((process.stdout.read().split() or [line])[-1])
    with FeatureStore(tmp_path, "key", no_warning) as store:
        found, missing = store.get_many([f"w-{batch}-{row}" for batch in range(reported + 2) for row in range(8)])
    assert len(missing) in {0, 8}  # the batch after the last one reported: whole or not at all
    assert all(digest.startswith(f"w-{reported + 1}-") for digest in missing)
    np.testing.assert_array_equal(found[: (reported + 1) * 8, 0], np.repeat(np.arange(reported + 1), 8))


def test_several_processes_write_at_once(tmp_path):
    processes = [write_batches(tmp_path, str(number), 30) for number in range(3)]
    assert [process.wait() for process in processes if process.communicate()] == [0, 0, 0]
    with FeatureStore(tmp_path, "key", no_warning) as store:
        digests = [f"{number}-{batch}-{row}" for number in range(3) for batch in range(30) for row in range(8)]
        found, missing = store.get_many(digests)
    assert missing == []
    np.testing.assert_array_equal(found[:, 0], np.tile(np.repeat(np.arange(30), 8), 3))


def filled_file(folder):
    with FeatureStore(folder, "key", no_warning) as store:
        store.put_many([f"{number:064x}" for number in range(300)], np.ones((300, 64), dtype=np.float32))
    return folder / "key.sqlite"


def overwrite(path, start, content):
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


@pytest.mark.parametrize("damage", ["header", "middle", "one value", "truncated"])
def test_a_damaged_file_is_set_aside_with_a_warning_and_begun_again(tmp_path, damage):
    path = filled_file(tmp_path)
    content = path.read_bytes()
    if damage == "header":
        path.write_bytes(b"not a database at all" * 100)
    elif damage == "middle":
        overwrite(path, 4096, os.urandom(len(content) - 4096))
    elif damage == "one value":
        overwrite(path, content.rindex(np.float32(1).tobytes() * 64), np.float32(2).tobytes())
    else:
        path.write_bytes(content[: len(content) // 2])
    warnings = []
    digests = [f"{number:064x}" for number in range(300)]
    with FeatureStore(tmp_path, "key", warnings.append) as store:
        assert store.get_many(digests)[1] == digests
        store.put_many(digests, np.ones((300, 64), dtype=np.float32))
        assert store.get_many(digests)[1] == []
    assert len(warnings) == 1
    assert "key.damaged-1.sqlite" in warnings[0]
    assert (tmp_path / "key.damaged-1.sqlite").is_file()


def test_a_second_damaged_file_does_not_replace_the_first(tmp_path):
    warnings = []
    for _ in range(2):
        (tmp_path / "key.sqlite").write_bytes(b"not a database at all" * 100)
        FeatureStore(tmp_path, "key", warnings.append).close()
    assert {path.name for path in tmp_path.iterdir()} >= {"key.damaged-1.sqlite", "key.damaged-2.sqlite"}
    assert len(warnings) == 2


FULL_DISK = """
import resource, sys, numpy
from pathlib import Path
from tl_core.errors import JobError
from tl_core.ml.feature_store import FeatureStore
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
with FeatureStore(Path(sys.argv[1]), "key", print) as store:
    try:
        for batch in range(100):
            store.put_many([f"{batch}-{row}" for row in range(8)], numpy.ones((8, 256), numpy.float32))
    except JobError as error:
        print(batch, error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_no_room_is_said_in_a_sentence_and_earlier_batches_stay(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout
    batches, sentence = answer.strip().split(" ", 1)
    assert "cannot be kept" in sentence
    assert "make room" in sentence
    with FeatureStore(tmp_path, "key", no_warning) as store:
        digests = [f"{batch}-{row}" for batch in range(int(batches)) for row in range(8)]
        assert digests
        assert store.get_many(digests)[1] == []


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot be made"):
        FeatureStore(tmp_path / "file" / "features", "key", no_warning)


def test_a_path_that_is_no_file_is_said_in_a_sentence(tmp_path):
    (tmp_path / "key.sqlite").mkdir()
    with pytest.raises(JobError, match="cannot be kept"):
        FeatureStore(tmp_path, "key", no_warning)


@dataclass(frozen=True)
class Numbered:
    """A picture whose content is a number."""

    name: str
    digest: str
    value: float


def numbered(*values):
    return [Numbered(f"{place}.png", f"digest-{value}", value) for place, value in enumerate(values)]


class Backbone:
    """Counts what it is asked for; the features of v are v, v², 1."""

    def __init__(self):
        self.loaded = []
        self.batches = []

    def load(self, picture):
        self.loaded.append(picture.value)
        return picture.value

    def encode(self, batch):
        self.batches.append(len(batch))
        values = np.array(batch, dtype=np.float32)
        return np.column_stack([values, values**2, np.ones_like(values)])


def computed_by(load, encode):
    return lambda: partial(encode_reading_ahead, load=load, encode=encode, workers=2)


def test_features_are_in_order_and_equal_pictures_are_computed_once(store):
    backbone = Backbone()
    pictures = numbered(3, 1, 3, 2, 1, 5, 4)
    features = compute_features(pictures, computed_by(backbone.load, backbone.encode), store, batch_size=2)
    np.testing.assert_array_equal(features[:, 0], [3, 1, 3, 2, 1, 5, 4])
    np.testing.assert_array_equal(features[:, 1], [9, 1, 9, 4, 1, 25, 16])
    assert sorted(backbone.loaded) == [1, 2, 3, 4, 5]
    assert backbone.batches == [2, 2, 1]


def test_only_what_is_new_is_computed(store):
    compute_features(numbered(1, 2, 3), computed_by(Backbone().load, Backbone().encode), store, batch_size=2)
    backbone = Backbone()
    heard = []
    features = compute_features(
        numbered(4, 3, 2, 1),
        computed_by(backbone.load, backbone.encode),
        store,
        batch_size=2,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert backbone.loaded == [4]
    assert heard == [(3, 4), (4, 4)]
    np.testing.assert_array_equal(features[:, 0], [4, 3, 2, 1])


def test_what_computes_is_not_made_where_all_is_known(store):
    compute_features(numbered(1, 2, 3), computed_by(Backbone().load, Backbone().encode), store, batch_size=2)
    heard = []

    def encoder():
        raise AssertionError("nothing is missing")

    features = compute_features(
        numbered(3, 1), encoder, store, batch_size=2, progress=lambda done, total: heard.append((done, total))
    )
    assert heard == [(2, 2)]
    np.testing.assert_array_equal(features[:, 0], [3, 1])


def test_stopping_keeps_what_was_computed(store):
    backbone = Backbone()
    pictures = numbered(*range(10))
    stopped = compute_features(
        pictures,
        computed_by(backbone.load, backbone.encode),
        store,
        batch_size=2,
        should_stop=lambda: len(backbone.batches) == 2,
    )
    assert stopped is None
    assert store.get_many([picture.digest for picture in pictures])[1] == [f"digest-{value}" for value in range(4, 10)]


def test_pictures_are_loaded_while_the_backbone_works_and_memory_stays_bounded(store):
    backbone = Backbone()
    expected_ahead = threading.Event()
    before_first_batch = []

    def load(picture):
        backbone.load(picture)
        if len(backbone.loaded) >= 3 * 4:
            expected_ahead.set()
        return picture.value

    def encode(batch):
        if not backbone.batches:
            assert expected_ahead.wait(10)  # the next two batches are loaded while the first is here
            before_first_batch.append(len(backbone.loaded))
        return backbone.encode(batch)

    compute_features(numbered(*range(100)), computed_by(load, encode), store, batch_size=4)
    assert before_first_batch == [12]


def test_an_error_while_loading_ends_the_pass_and_keeps_earlier_batches(store):
    def load(picture):
        if picture.value == 5:
            raise OSError("gone")
        return picture.value

    with pytest.raises(OSError, match="gone"):
        compute_features(numbered(*range(8)), computed_by(load, Backbone().encode), store, batch_size=2)
    assert store.get_many(["digest-3", "digest-4"])[1] == ["digest-4"]


def test_few_pictures_make_as_many_batches_as_can_be_computed_at_a_time(store):
    backbone = Backbone()
    encoder = computed_by(backbone.load, backbone.encode)
    compute_features(numbered(*range(10)), encoder, store, batch_size=16, least_batches=4)
    assert backbone.batches == [3, 3, 3, 1]


def test_features_that_are_not_finite_are_refused_by_name_and_not_stored(store):
    def encode(batch):
        return np.array([[value, np.inf if value == 2 else 1] for value in batch], dtype=np.float32)

    with pytest.raises(ModelError, match=r"2\.png"):
        compute_features(numbered(0, 1, 2, 3), computed_by(Backbone().load, encode), store, batch_size=4)
    assert len(store.get_many([f"digest-{value}" for value in range(4)])[1]) == 4


def test_no_pictures_give_no_features(store):
    assert len(compute_features([], computed_by(Backbone().load, Backbone().encode), store, batch_size=2)) == 0
