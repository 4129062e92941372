"""What this project can do, one function for each thing: the Python face, under the command line and the page.

    import tl_core
    report = tl_core.train(data="photos")
    tl_core.predict(report["run_id"], ["new.jpg"])

Plain values in, plain values out. torch is imported by the functions that need it, after whatever can be said about
wrong words has been said. Must not know flags, forms or terminals.
"""

from tl_core.api.asking import evaluate, predict, warm
from tl_core.api.preparing import check, models, models_at_hand, preview, rank
from tl_core.api.sharing import deploy, pack, push
from tl_core.api.training import resume, resume_in_background, runs, stop, train, train_in_background

__all__ = [
    "check",
    "deploy",
    "evaluate",
    "models",
    "models_at_hand",
    "pack",
    "predict",
    "preview",
    "push",
    "rank",
    "resume",
    "resume_in_background",
    "runs",
    "stop",
    "train",
    "train_in_background",
    "warm",
]
