"""What the form of Share means: a repository's name, what goes with the model, which pictures would be public.

Must not know components, tokens or who asks.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core.errors import HubError
from tl_core.files import existing_path
from tl_core.hub.repository import is_hub_id
from tl_core.images.samples import SAMPLE_PREFIX
from tl_core.runs import Run
from tl_core.settings import read_settings
from tl_core.sharing import choose_examples
from tl_core.ui.judged import judged_pictures, labelled_pictures, small_copies

EXAMPLE_SIDE = 96  # pixels
# Where nothing better is known of a run, and of the person before the Hub was asked.
ANY_NAME, ANY_OWNER = "image-classifier", "your-name"
# As much of a name as leaves room for an owner's, and for what the demo's ends with.
_LONGEST_NAME = 50


@dataclass(frozen=True)
class Wanted:
    """What the form asks for."""

    owner: str | None
    name: str | None
    private: bool
    space: bool
    examples: bool

    @property
    def repo_id(self) -> str:
        """Raises HubError where a part of it is missing."""
        owner, name = (self.owner or "").strip(), (self.name or "").strip()
        if not owner:
            raise HubError("there is no owner for the repository yet; say who you are first, above")
        if not name:
            raise HubError("the repository has no name; give it one")
        return f"{owner}/{name}"

    @property
    def options(self) -> dict[str, Any]:
        return {"private": self.private, "space": self.space, "examples": self.space and self.examples}

    def pictures(self, run: Run) -> Sequence[Path]:
        """The test pictures that the demo would show: none without consent. Raises DataError where there are none."""
        return choose_examples(run) if self.options["examples"] else ()


def suggested_name(run: Run) -> str:
    """A repository's name made of what the run is called, else of its images; one that the Hub takes."""
    view = run.view()
    data = view.data.removeprefix(SAMPLE_PREFIX)
    public = data != view.data or (is_hub_id(data) and existing_path(data) is None)  # a folder's name says too little
    named = data.rpartition("/")[2] if public else ""
    for words in (view.name, f"{named}-{view.strategy}" if named else None):
        if words and (name := as_name(words)):
            return name
    return ANY_NAME


def as_name(words: str) -> str:
    """`words` as far as a repository can be called so: "Grüne Tomate" → grune-tomate; "" where nothing is left."""
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"([._-])[._-]+", r"\1", re.sub(r"[^a-z0-9._-]+", "-", plain))
    return name[:_LONGEST_NAME].strip("-._").removesuffix(".git")


def example_pictures(run: Run) -> str:
    """Markup of the pictures that a demo would make public. Raises DataError where there are none."""
    paths = choose_examples(run)
    judged = {each.path: each for each in judged_pictures(run.report() or {"predictions": []})}
    copies, _ = small_copies([judged[path] for path in paths if path in judged], EXAMPLE_SIDE, read_settings())
    return labelled_pictures(copies)
