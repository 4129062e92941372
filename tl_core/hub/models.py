"""A model from the Hub: its configuration, its processor, its safetensors weights and its card, which has its licence.

Nothing else of the repository is fetched. Must not know: which architectures classify images; whoever does may look at
config.json before the weights come.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tl_core.errors import ModelError
from tl_core.files import read_json
from tl_core.hub.repository import Repository, Unreachable, is_hub_id
from tl_core.settings import Settings

_CONFIG = "config.json"
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_CARD = "README.md"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_OTHER_WEIGHTS = frozenset({".bin", ".ckpt", ".h5", ".msgpack", ".pkl", ".pt", ".pth"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedModel:
    """A checkpoint folder on this disk and the commit it is."""

    path: Path
    id: str
    revision: str


def fetch_model(
    model_id: str,
    settings: Settings,
    revision: str | None = None,
    *,
    weights: bool = True,
    accept: Callable[[dict[str, Any]], None] | None = None,
) -> FetchedModel:
    """Download what a model needs, or find it in the Hub client's cache.

    `revision` is a branch, tag or commit; what comes back is pinned to a commit. `weights=False` leaves the weights
    out. `accept` is shown config.json before the weights come and may raise to refuse the architecture.
    Raises HubError (offline, unknown, gated, refused) and ModelError (no model, or none that is safe to load).
    """
    if not is_hub_id(model_id):
        raise ModelError(f"{model_id!r} cannot be a model on the Hub: an id looks like owner/name")
    repository = Repository("model", model_id, revision)
    kept = _kept(repository, weights)
    if kept is None or not repository.is_pinned:
        try:
            folder = _download(repository, repository.pinned(settings), weights, accept)
            return FetchedModel(folder, model_id, folder.name)
        except Unreachable as failure:
            if kept is None:
                _refuse_kept_pickle(repository)
                raise
            if not settings.offline:
                log.warning("%s; using the copy of %s downloaded earlier", failure.why, model_id)
    _check_config(kept, model_id, accept)
    return FetchedModel(kept, model_id, kept.name)


def _download(
    repository: Repository, commit: Repository, weights: bool, accept: Callable[[dict[str, Any]], None] | None
) -> Path:
    wanted = _wanted(commit.id, set(commit.files()), weights)
    _check_config(commit.download([_CONFIG]), commit.id, accept)
    return repository.download(wanted)  # by its own name, so that the cache knows this name without the Hub


def _wanted(model_id: str, names: set[str], weights: bool) -> list[str]:
    """The files worth fetching. Raises ModelError where the repository is no model that can be loaded safely."""
    if _CONFIG not in names:
        raise ModelError(
            f"{model_id} holds no model for transformers or timm: it has no config.json; take a model whose task is "
            "image classification"
        )
    wanted = [_CONFIG, *(name for name in (*_PROCESSORS, _CARD) if name in names)]
    if not weights:
        return wanted
    if _WHOLE in names:
        return [*wanted, _WHOLE]
    if _INDEX in names:
        return [*wanted, _INDEX, *sorted(name for name in names if _SHARD.fullmatch(name))]
    _refuse_pickle(model_id, names)
    raise ModelError(f"{model_id} holds no weights: it has no {_WHOLE}; take another model")


def _refuse_pickle(model_id: str, names: Iterable[str]) -> None:
    others = sorted(name for name in names if PurePosixPath(name).suffix in _OTHER_WEIGHTS)
    if others:
        raise ModelError(
            f"{model_id} has no safetensors weights, only {others[0]}; such a format can run code when opened and "
            "is never loaded here; convert it (https://huggingface.co/spaces/safetensors/convert) or take another model"
        )


def _refuse_kept_pickle(repository: Repository) -> None:
    """Another program may have left a model in the cache that has no other weights."""
    folder = repository.kept_folder(_CONFIG)
    if folder is not None and not any(folder.glob("*.safetensors*")):
        _refuse_pickle(repository.id, [file.name for file in folder.iterdir()])


def _kept(repository: Repository, weights: bool) -> Path | None:
    """The folder that an earlier download left, if all of it is there."""
    folder = repository.kept_folder(_CONFIG)
    if folder is None or not weights or (folder / _WHOLE).is_file():
        return folder
    if not (folder / _INDEX).is_file():
        return None
    index = read_json(folder / _INDEX) or {}
    weight_map = index.get("weight_map")
    shards = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
    return folder if shards and all((folder / shard).is_file() for shard in shards) else None


def _check_config(folder: Path, model_id: str, accept: Callable[[dict[str, Any]], None] | None) -> None:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except ValueError as failure:
        raise ModelError(f"the config.json of {model_id} is not valid JSON; take another model") from failure
    # transformers writes model_type, timm writes architecture
    if not isinstance(config, dict) or not ("model_type" in config or "architecture" in config):
        raise ModelError(f"the config.json of {model_id} names no architecture; take a model for transformers or timm")
    if accept:
        accept(config)
