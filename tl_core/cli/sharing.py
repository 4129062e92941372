"""The commands that publish: a run's model, and this app."""

from typing import Any

import click

from tl_core.cli.answers import answer, json_option
from tl_core.errors import ConfigError
from tl_core.terminal import Progress, lines_of_planned, lines_of_pushed


@click.command()
@click.argument("run")
@click.option("--repo-id", required=True, metavar="OWNER/NAME", help="Where: you, or an organisation of yours.")
@click.option("--private", is_flag=True, help="Only you, or the organisation, can see it.")
@click.option("--space", is_flag=True, help="Also a Space, OWNER/NAME-demo, where anybody can try the model.")
@click.option("--examples", is_flag=True, help="With --space: show a test picture of each class, which is then public.")
@click.option("--replace", is_flag=True, help="Change what is there already, and delete the parts of an earlier model.")
@click.option("--dry-run", is_flag=True, help="List the files and their sizes; needs neither token nor network.")
@json_option
def push(run: str, as_json: bool, dry_run: bool, **given: Any) -> None:
    """Publish the model of RUN on the Hugging Face Hub, with a card that says what it is and how good.

    The access token is HF_TOKEN or that of `hf auth login`. After an interruption the same command goes on.
    """
    from tl_core import api

    with Progress() as progress:
        value = api.push(run, **given, dry_run=dry_run, ticker=progress.show)
    answer(as_json, value, lines_of_planned(value) if dry_run else lines_of_pushed(value))


@click.command()
@click.option("--repo-id", required=True, metavar="OWNER/NAME", help="Where: you, or an organisation of yours.")
@click.option("--private", is_flag=True, help="Only you, or the organisation, can open it.")
@click.option(
    "--hardware", metavar="NAME", help="What the Space suggests to those who duplicate it.  [default: cpu-basic]"
)
@click.option(
    "--variable",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the app there, as TL_MAX_IMAGES=20000; may be repeated, and everybody can read it.",
)
@click.option("--replace", is_flag=True, help="Replace what another app, or somebody, has put there.")
@click.option("--dry-run", is_flag=True, help="List the files and their sizes; needs neither token nor network.")
@json_option
def deploy(as_json: bool, dry_run: bool, variables: tuple[str, ...], **given: Any) -> None:
    """Put this app on a Hugging Face Space. A second time sends only what has changed.

    The access token is HF_TOKEN or that of `hf auth login`.
    """
    from tl_core import api

    with Progress() as progress:
        value = api.deploy(**given, variables=_variables(variables), dry_run=dry_run, ticker=progress.show)
    answer(as_json, value, lines_of_planned(value) if dry_run else lines_of_pushed(value))


def _variables(words: tuple[str, ...]) -> dict[str, str]:
    """{name: value} of "name=value". Raises ConfigError; what follows no name is not repeated, it may be a secret."""
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError("--variable is NAME=VALUE, as in TL_MAX_IMAGES=20000, and one of them has no '='")
        if given.setdefault(name, value) != value:
            raise ConfigError(f"--variable {name} is given twice, with different values; give it once")
    return given
