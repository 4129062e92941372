"""The command line: words in, one answer out. Everything a command does is done elsewhere.

With --json exactly one JSON object goes to stdout; progress, notes and errors go to stderr. Exit codes: 0 done, 2 the
person can mend it, 130 interrupted, 1 our fault. What a command needs is imported when it runs, so that --help answers
at once.
"""

import io
import json
import sys

import click

from tl_core.cli.commands import cli
from tl_core.cli.sharing import deploy, push
from tl_core.ending import INTERRUPTED
from tl_core.errors import TLError, printable
from tl_core.launch import once

cli.add_command(push)
cli.add_command(deploy)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; of several processes that a launcher started, the first one runs it."""
    try:
        return once(_run)(arguments)
    except TLError as failure:  # the others could not be reached
        return _fail(failure.message, failure.details, as_json=False)


def _run(arguments: list[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else arguments
    try:
        result = cli.main(args=arguments, prog_name="python -m tl_core", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except TLError as failure:
        return _fail(failure.message, failure.details, as_json="--json" in given)
    except click.exceptions.NoArgsIsHelpError as request:
        click.echo(request.ctx.get_help())
        return 0
    except click.ClickException as failure:
        return _fail(printable(failure.format_message()), (), as_json="--json" in given)
    except (KeyboardInterrupt, click.Abort):
        if "--json" in given:
            click.echo(json.dumps({"error": "interrupted", "details": []}))
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _fail(message: str, details: tuple[str, ...], *, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({"error": message, "details": list(details)}))
    print(f"error: {message}", file=sys.stderr)
    for line in details:
        print(f"  {line}", file=sys.stderr)
    return 2
