"""Our libraries' own chatter, turned down: progress bars and advice meant for people who call them directly."""

import warnings


def quieten() -> None:
    """For a whole process of ours (a command, a worker); never called at import, so that other programs keep theirs."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator is found.*")
