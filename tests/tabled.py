"""Tables of labelled pictures for tests, with the pictures inside or beside them, and what the core lists of them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pictures import picture

from tl_core.images.listing import Listing, walk
from tl_core.images.table_choice import Part, table_parts
from tl_core.images.tables import list_table
from tl_core.settings import Settings


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    picture(0.5, seed, (8, 8)).save(stream, "PNG")
    return stream.getvalue()


def image_files(folder: Path, names: Sequence[str]) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(seed))


def table(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parquet(path: Path, columns: dict[str, Any], classes: list[str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = pa.table(columns)
    if classes is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(made, path, row_group_size=2)
    return path


def in_bytes(count: int, first: int = 0) -> pa.Array:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.array([{"bytes": png(first + n), "path": f"{n}.png"} for n in range(count)], type=kind)


def listed(path: Path, settings: Settings, image_column: str | None = None, label_column: str | None = None) -> Listing:
    return list_table([Part(path)], path.parent, settings, image_column, label_column)


def folder_listed(root: Path, settings: Settings) -> Listing:
    tree = walk(root, settings)
    return list_table(table_parts(tree), root, settings, tree=tree)


def labels(listing: Listing) -> dict[str, str]:
    return {file.name: file.label for file in listing.files}


def reasons(listing: Listing) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in listing.skipped}
