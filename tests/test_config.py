"""Options: parsed, bounded, and every problem told at once in the words of the command line."""

import json
from pathlib import Path

import pytest

from tl_core.config import MAX_SEED, TrainConfig, options
from tl_core.errors import ConfigError
from tl_core.files import write_json
from tl_core.options import flag, read_config_file


def problems(values: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        TrainConfig.parse(values)
    return list(raised.value.details) or [raised.value.message]


def test_text_is_converted() -> None:
    config = TrainConfig.parse({"data": "photos", "strategy": "scratch", "epochs": "3", "learning_rate": "1e-3"})
    assert config.epochs == 3
    assert config.learning_rate == 0.001


def test_what_is_derived_can_be_asked_for_by_a_word() -> None:
    config = TrainConfig.parse({"data": "auto", "strategy": "full", "batch_size": "auto", "augment": "auto"})
    assert (config.data, config.batch_size, config.augment) == ("auto", None, "auto")
    assert "--seed is 'auto'" in problems({"data": "x", "seed": "auto"})[0]


def test_every_problem_is_reported_together() -> None:
    found = problems({"strategy": "frozn", "epochs": "many", "seed": -1, "learning_rate": "nan", "bach_size": 4})
    assert len(found) == 6
    assert any("--data is missing" in line for line in found)
    assert any(
        "--strategy is 'frozn'; it must be one of auto, frozen, last-blocks, full, lp-ft, scratch" in line
        for line in found
    )
    assert any("--epochs is 'many'; it must be a whole number" in line for line in found)
    assert any("--seed is -1" in line and f"{MAX_SEED:,}" in line for line in found)
    assert any("--learning-rate is 'nan'" in line for line in found)


def test_an_unknown_option_names_the_nearest() -> None:
    assert problems({"data": "x", "bach_size": 4}) == ["there is no option 'bach_size'; did you mean 'batch_size'?"]


def test_an_unknown_option_without_a_near_one_lists_all() -> None:
    (line,) = problems({"data": "x", "zzzzzz": 1})
    assert "known options: data" in line


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"strategy": "frozen", "epochs": 3}, "--epochs"),
        ({"strategy": "frozen", "augment": "crop"}, "--augment"),
        ({"strategy": "frozen", "label_smoothing": 0.1}, "--label-smoothing"),
        ({"strategy": "scratch", "head_solver": "trainer"}, "--head-solver"),
        ({"strategy": "scratch", "layer_decay": 0.9}, "--layer-decay"),
        ({"strategy": "scratch", "control": True}, "--control"),
        ({"strategy": "full", "unfreeze_blocks": 2}, "--unfreeze-blocks"),
        ({"strategy": "frozen", "mix": "mixup"}, "--mix"),
        ({"strategy": "frozen", "drop_path": 0.1}, "--drop-path"),
        ({"strategy": "frozen", "thoroughness": "quick"}, "--thoroughness"),
        ({"strategy": "full", "thoroughness": "quick", "epochs": 3}, "--epochs gives them"),
        ({"strategy": "full", "thoroughness": "thorough", "max_steps": 3}, "--max-steps gives them"),
        ({"strategy": "full", "augment": "none", "mix": "mixup"}, "--mix"),
        ({"strategy": "full", "augment": "none", "mirror": "yes"}, "--mirror"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(values: dict[str, object], named: str) -> None:
    (line,) = problems({"data": "x", **values})
    assert named in line


def test_a_path_that_is_no_unicode_is_a_path(tmp_path: Path) -> None:
    config = TrainConfig.parse({"data": "caf\udce9 ", "model": "x"})
    assert config.data == "caf\udce9 "
    write_json(tmp_path / "config.json", config.to_json())
    assert TrainConfig.parse(read_config_file(tmp_path / "config.json")) == config
    assert problems({"data": 5}) == ["--data is 5; it must be text"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"seed": ' + "1" * 5_000 + "}"])
def test_a_config_file_beyond_all_measure_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ConfigError):
        TrainConfig.parse(read_config_file(tmp_path / "c.json"))


def test_a_config_file_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(b'\xef\xbb\xbf{"data": "x"}')
    assert read_config_file(tmp_path / "c.json") == {"data": "x"}


def test_a_saved_configuration_reads_back_the_same() -> None:
    config = TrainConfig.parse({"data": "日本 語", "strategy": "scratch", "batch_size": 8, "name": "my run"})
    assert TrainConfig.parse(json.loads(json.dumps(config.to_json()))) == config


def test_the_command_repeats_what_was_changed_and_nothing_else() -> None:
    config = TrainConfig.parse({"data": "my photos", "strategy": "scratch", "max_steps": 5})
    assert config.command() == "python -m tl_core train --data 'my photos' --strategy scratch --max-steps 5"


def test_a_switch_is_repeated_as_a_switch() -> None:
    config = TrainConfig.parse({"data": "photos", "control": "true"})
    assert config.control is True
    assert config.command() == "python -m tl_core train --data photos --control"
    assert problems({"data": "x", "control": "perhaps"}) == ["--control is 'perhaps'; it must be true or false"]


def test_every_option_has_words_and_a_group() -> None:
    for option in options():
        assert option.label and option.help and option.group, option.name
        assert flag(option.name).startswith("--")


def test_what_is_handed_on_names_no_folder_of_this_computer(tmp_path: Path) -> None:
    config = TrainConfig.parse({"data": str(tmp_path / "photos"), "model": "owner/name"}).portable()
    assert (config.data, config.model) == ("photos", "owner/name")
    assert TrainConfig.parse({"data": "sample:digits"}).portable().data == "sample:digits"


def test_contradictions_are_reported_beside_wrong_values() -> None:
    found = problems({"data": "x", "seed": -1, "label_smoothing": 0.1})
    assert len(found) == 2


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not valid JSON"), ("[1]", "one JSON object"), (None, "no such file")]
)
def test_a_bad_config_file_is_told(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_config_file(path)
