"""One picture asked of one model, with the answer as markup.

Must not know components, nor whether the asker may use the model.
"""

from pathlib import Path

from tl_core import api
from tl_core.errors import DataError
from tl_core.ui.markup import answer_bars

TOP_CLASSES = 5


def answer_of(model: str, picture: str | Path, called: str) -> str:
    """Markup of the most probable classes, by a model that is `called` so. Raises TLError."""
    # The core takes folders too, and a client may name the one that all uploads of all people lie in.
    if not Path(picture).is_file():
        raise DataError("this picture is not there any more; drop it again")
    try:
        value = api.predict(model, [picture], top=TOP_CLASSES)
    except DataError as failure:
        # Where the page keeps an upload is of no use to whoever dropped it.
        raise DataError(failure.message.replace(f"{Path(picture).parent}/", ""), failure.details) from failure
    return answer_bars(called, value["predictions"][0]["labels"])
