"""`python -m tl_core`: the command line."""

from typing import NoReturn

from tl_core.ending import end_with


def main() -> NoReturn:
    end_with(_run)


def _run() -> int:
    from tl_core.cli import main as run_command  # after `end_with`, which calls only exit handlers registered later

    return run_command()


if __name__ == "__main__":
    main()
