"""Who asks a page without a browser: Gradio's own client, as patient as the browser of these tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradio_client import Client
from patience import PATIENCE


@contextmanager
def asking(address: str, downloads: Path | None = None) -> Iterator[Client]:
    """The files of answers go to `downloads`, or nowhere."""
    client = Client(
        address,
        verbose=False,
        analytics_enabled=False,
        download_files=downloads or False,
        httpx_kwargs={"timeout": PATIENCE},
    )
    try:
        yield client
    finally:
        client.close()
