"""How a command answers: lines for a person, or with --json one object. Must not know commands."""

import json
from collections.abc import Callable
from typing import Any

import click


def answer(as_json: bool, value: dict[str, Any], lines: list[str]) -> None:
    if as_json:
        click.echo(json.dumps(value))
    else:
        for line in lines:
            click.echo(line)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)
