"""The page for tests: the handlers of its panels, what elements a piece of markup has, names that want to be markup."""

import asyncio
import copy
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import gradio as gr

from tl_core.ui.session import build_session

HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = (HOSTILE, "${1+1} {{value}}", "猫" * 40)


class Elements(HTMLParser):
    """What elements a piece of markup really has."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def by_id(answer: dict[Any, Any]) -> dict[str, Any]:
    """An answer of a handler by the elem_id, or label, of its components."""
    return {
        getattr(part, "elem_id", None) or getattr(part, "label", None) or "notice": value
        for part, value in answer.items()
    }


def with_mistakes(report: dict[str, Any]) -> dict[str, Any]:
    """The report as if the first class had been taken for the second, whatever it was taken for."""
    changed = copy.deepcopy(report)
    for row in changed["predictions"]:
        if row["label"] == HOSTILE:
            row["predicted"] = NAMES[1]
    labels = changed["metrics"]["labels"]
    matrix = [[0] * len(labels) for _ in labels]
    for row in changed["predictions"]:
        matrix[labels.index(row["label"])][labels.index(row["predicted"])] += 1
    changed["metrics"]["confusion_matrix"] = matrix
    return changed


def handlers_of(*panels: Any) -> dict[str, Callable[..., dict[Any, Any]]]:
    """The handlers of these panel modules as the app would call them, "module.name"."""

    async def build() -> gr.Blocks:  # outside of a loop gradio makes loops and never closes them
        with gr.Blocks(analytics_enabled=False) as app:
            session = build_session()
            for panel in panels:
                panel.bind(panel.build(), session)
        return app

    app = asyncio.run(build())
    return {
        f"{each.fn.__module__.rpartition('.')[2]}.{each.fn.__name__}": each.fn for each in app.fns.values() if each.fn
    }
