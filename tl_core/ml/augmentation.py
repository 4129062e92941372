"""How training images are varied, in words that a plan can keep: no pixels here, `transforms` and `mixing` touch those.

Everything random about an image follows from `stream_seed`, so that a resumed training sees what an uninterrupted one
would have seen. Must not import torch: plans are made and read without it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Policy = Literal["none", "crop", "colour", "trivial", "rand"]
Mix = Literal["none", "mixup", "cutmix", "both"]

_POLICY_WORDS: dict[Policy, list[str]] = {
    "none": [],
    "crop": ["random crops"],
    "colour": ["random crops", "colour"],
    "trivial": ["random crops", "one random change of shape or colour (TrivialAugment)"],
    "rand": ["random crops", "two random changes of shape or colour (RandAugment)"],
}
_MIX_WORDS: dict[Mix, list[str]] = {"none": [], "mixup": ["mixup"], "cutmix": ["cutmix"], "both": ["mixup or cutmix"]}


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images; as it stands without arguments, nothing.

    `policy`: "none" as evaluated; "crop" a random part, resized; "colour" that and slightly other colours; "trivial"
    and "rand" a crop and one or two operations drawn from a set of fourteen (Müller & Hutter 2021; Cubuk et al. 2020).
    `mirror`: half of the images left for right. `erase`: the probability, 0–1, that a rectangle is wiped out (Zhong et
    al. 2020). `mix`: pairs of images blended (mixup, Zhang et al. 2018), or one pasted into the other (cutmix, Yun et
    al. 2019), with their labels; "both" draws one of the two for each batch.
    """

    policy: Policy = "none"
    mirror: bool = False
    erase: float = 0.0
    mix: Mix = "none"

    def describe(self) -> str:
        """A phrase for the log, such as "random crops, mirror images, erased rectangles in 25 % of images, mixup"."""
        words = [*_POLICY_WORDS[self.policy]]
        if self.mirror:
            words.append("mirror images")
        if self.erase:
            words.append(f"erased rectangles in {100 * self.erase:g} % of images")
        return ", ".join([*words, *_MIX_WORDS[self.mix]]) or "none"


def stream_seed(seed: int, epoch: int, indices: Sequence[int]) -> int:
    """The 63-bit seed of all that is drawn in an epoch for one image, or for a batch of images in this order."""
    name = "/".join(map(str, (seed, epoch, *indices)))
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch wants a signed 64-bit number
