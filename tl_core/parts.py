"""Which pictures a run was taught, steered and judged by, remembered by their content in the run folder.

Folders change: a picture that was taught today must not be a test picture of the same run tomorrow, whatever has been
added, moved or renamed in between. Must not know models or how a division is drawn.
"""

from dataclasses import dataclass
from typing import Any

from tl_core.errors import JobError
from tl_core.files import read_json, write_json
from tl_core.images.collection import TEST, TRAIN, VALIDATION, Collection, Picture
from tl_core.images.splits import Division
from tl_core.images.wording import count
from tl_core.runs import Run

FILE_NAME = "parts.json"


@dataclass(frozen=True)
class Parts:
    """Digests of the pictures in each part of a run's division, and its class names in order.

    `reported` is the person's name of the part that was judged. With `uses_folds` the model that was saved was fitted
    on all of them, and no picture is left that could judge it.
    """

    train: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]
    reported: str
    given: bool
    uses_folds: bool
    labels: tuple[str, ...]
    inherited: frozenset[str] = frozenset()  # what the run that this one began from was fitted on

    @property
    def fitted(self) -> frozenset[str]:
        """Pictures that the saved model was fitted or chosen on."""
        seen = self.train | self.validation | self.inherited
        return seen | self.test if self.uses_folds else seen

    def part_of(self, picture: Picture) -> str | None:
        """The part that a picture was in, None for one that the run never saw."""
        if picture.split == self.reported and self.given and picture.digest in self.test:
            return TEST  # given parts may hold copies of each other's pictures
        for name in (TRAIN, VALIDATION, TEST):
            if picture.digest in getattr(self, name):
                return name
        return None

    def divide(self, collection: Collection) -> Division:
        """The run's division of a collection as it is now. Raises JobError when its classes have changed."""
        if tuple(collection.classes) != self.labels:
            raise JobError(
                f"the classes of {collection.source} have changed since this run began; "
                "a run can only continue on the same classes: start a new one",
                [f"then: {', '.join(self.labels[:20])}", f"now:  {', '.join(collection.classes[:20])}"],
            )
        division = Division([], [], [], reported=self.reported, given=self.given, uses_folds=self.uses_folds)
        unknown = 0
        for index, picture in enumerate(collection.pictures):
            part = self.part_of(picture)
            if part is None:
                unknown += 1
            else:
                getattr(division, part).append(index)
        if unknown:
            division.notes.append(
                f"{count(unknown, 'image was', 'images were')} added since this run began and left out; "
                "a new run uses all."
            )
        gone = len((self.train | self.validation | self.test) - {picture.digest for picture in collection.pictures})
        if gone:
            tested = len(self.test) - len({collection.pictures[index].digest for index in division.test})
            division.notes.append(
                f"{count(gone, 'image', 'images')} of this run can no longer be found, {tested:,} of them test images."
            )
        for name in (TRAIN, TEST):
            if not getattr(division, name):
                raise JobError(
                    f"none of this run's {name} images can be found any more; put them back, or start a new run"
                )
        return division


def remember_parts(run: Run, collection: Collection, division: Division, inherited: frozenset[str]) -> None:
    """Write the division down in the run folder, once."""
    digests = [picture.digest for picture in collection.pictures]
    value: dict[str, Any] = {
        name: sorted({digests[index] for index in getattr(division, name)}) for name in (TRAIN, VALIDATION, TEST)
    }
    value |= {"reported": division.reported, "given": division.given, "uses_folds": division.uses_folds}
    write_json(run.dir / FILE_NAME, {**value, "labels": collection.classes, "inherited": sorted(inherited)})


def recall_parts(run: Run) -> Parts | None:
    """The division that a run was begun with, None for a run that has none yet."""
    value = read_json(run.dir / FILE_NAME)
    if value is None:
        return None
    return Parts(
        train=frozenset(value[TRAIN]),
        validation=frozenset(value[VALIDATION]),
        test=frozenset(value[TEST]),
        reported=value["reported"],
        given=value["given"],
        uses_folds=value["uses_folds"],
        labels=tuple(value["labels"]),
        inherited=frozenset(value.get("inherited", ())),
    )
