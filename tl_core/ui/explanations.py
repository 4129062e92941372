"""What each way to teach a backbone means, and when to take it: the page's only words about strategies.

Must not know which are there, what they cost on these images, nor how they are shown.
"""

from dataclasses import dataclass
from typing import Literal

# What happens to a part of the network: kept as it is, taught, taught in small steps, begun anew, or one of the first
# three, which is decided when the run begins.
Lot = Literal["frozen", "learns", "gently", "anew", "decided"]
PARTS = ("edges and colours", "textures", "shapes and things", "the answer: your classes")


@dataclass(frozen=True)
class Way:
    """`name` for a list, `what` is learned and frozen, `when` to take it, and the lot of each of PARTS."""

    name: str
    what: str
    when: str
    lots: tuple[Lot, Lot, Lot, Lot]


# The ways shown first, in this order; the others are behind "another way".
FIRST = ("auto", "frozen", "lp-ft", "full")
WAYS: dict[str, Way] = {
    "auto": Way(
        "Whichever suits these images",
        "First the backbone looks at some of your pictures as it is, and heads on what it says are tried on pictures "
        "that they have not seen. What is told apart well already is not trained further: feature extraction. What is "
        "not is fine-tuned, as far as the time allows.",
        "Take it when you do not know; the run says what it chose and why.",
        ("decided", "decided", "decided", "learns"),
    ),
    "frozen": Way(
        "Feature extraction: teach only a new last layer",
        "The backbone is frozen: it turns each picture into numbers that describe it, its features, just as it learned "
        "to do before. Only a new last layer, the head, is learned: which features speak for which of your classes.",
        "Begin here. It takes seconds to minutes, does well with a handful of pictures of each class, and has little "
        "that could be learned by heart.",
        ("frozen", "frozen", "frozen", "learns"),
    ),
    "lp-ft": Way(
        "Fine-tuning: the last layer first, then everything",
        "First a head is learned on the frozen backbone, then everything goes on learning together, in small steps: a "
        "small learning rate adjusts what the backbone knows and does not overwrite it. A head that is already "
        "sensible pulls the layers below it in no wrong direction.",
        "Take it when feature extraction is not good enough: the best of these for most sets of pictures, in minutes "
        "to hours.",
        ("gently", "gently", "gently", "learns"),
    ),
    "full": Way(
        "Fine-tuning: everything at once",
        "Nothing is frozen: the new head and all layers of the backbone learn together from the first step on. The "
        "learning rate is small, and in large backbones smaller still for the early layers, whose edges and textures "
        "hold for most pictures.",
        "Take it with many pictures, or ones unlike what the backbone has seen (drawings, X-rays, microscopy).",
        ("gently", "gently", "gently", "learns"),
    ),
    "last-blocks": Way(
        "Only the last blocks",
        "The head and the blocks just below it learn; the early blocks stay frozen.",
        "Between feature extraction and fine-tuning: less to learn by heart, less memory and less time than training "
        "everything.",
        ("frozen", "frozen", "gently", "learns"),
    ),
    "scratch": Way(
        "From random weights, without transfer",
        "What the backbone has learned is thrown away: it begins with random weights and knows no edge and no texture. "
        "Everything must be learned from your pictures, so the learning rate is large and the training long.",
        "Not to get a good model, but to see what the pretrained one is worth; or with very many pictures unlike any "
        "photograph.",
        ("anew", "anew", "anew", "anew"),
    ),
}

ANOTHER = "Another way (advanced)"

BACKBONE = (
    "A pretrained network that has learned from very many pictures what edges, textures and things look like. Yours "
    "are taught on top of that: this is transfer learning, and why few pictures are enough. Larger ones know more and "
    "take longer. Choose one, a run of yours to go on from, or type a Hugging Face id."
)
THOROUGHNESS = "How many steps the training takes. More is not always better: past some point it learns by heart."
THOROUGHNESSES = {"quick": "Quick: a quarter of the steps", "standard": "Standard", "thorough": "Thorough: three times"}
CONTROL = "Also train from random weights, to see what transfer gained"
CONTROL_INFO = "The same backbone without what it had learned, for as long (a minute at least): it doubles the time."
PARTS_OF_IMAGES = (
    "Training images are learned from. Validation images are not: choices are made by them, and where they get no "
    "better while the training images still do, the model only learns by heart (overfitting), and training ends. Test "
    "images are used once, at the end: only they say how good it is on new pictures."
)
PARTS_IN_FOLDS = (
    "There are too few images for a part that is only tested on. Each is judged once, by a model that was taught the "
    "others: that says how good such a model is on new pictures. The one you get is taught all of them."
)
DERIVED = "Derived for you. Each can be given by hand, under “Everything else”, where it has a control."
OPTIONS = "All of this is derived from your pictures, the backbone and this computer. Change what you know better."
GROUPS: dict[str, tuple[str, str]] = {
    "training": (
        "Steps and learning rate",
        "A step looks at one batch of pictures and moves the weights a little against the error; the learning rate is "
        "how far. Too far, and what the backbone knows is lost; too little, and nothing is learned in time.",
    ),
    "augmentation": (
        "Augmentation",
        "Each time a training picture is looked at it is changed at random: cropped, shifted in colour, mirrored. The "
        "model then cannot learn single pictures by heart, and few pictures go further. A change must not turn one "
        "class into another: a mirrored letter may be no letter.",
    ),
    "model": ("Backbone and head", "What is done to the network itself."),
    "machine": ("This computer", "How it is computed: memory, number formats, and how often the work is saved."),
}
WHEN_DONE = "Push when done"
WHEN_DONE_WORDS = (
    "The model goes to the Hugging Face Hub as soon as the training has succeeded, even if this page is closed by "
    "then. Whether it can is found out before the training begins. The step “Share” does the same afterwards, and "
    "shows first what is sent."
)


def explain(strategy: str) -> tuple[str, str]:
    """(what is learned and what is frozen, when to take it)."""
    way = WAYS[strategy]
    return way.what, way.when
