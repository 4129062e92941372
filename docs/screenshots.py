"""Take the pictures of the page that the README shows.

    python docs/screenshots.py        needs Chromium

Starts the page with an empty home, walks through it with the handwritten digits as any person would, and writes
docs/*.png.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).resolve().parent
WIDE = {"width": 1200, "height": 1500}
PATIENCE = 120_000  # milliseconds
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


def main() -> int:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: there is no Chromium here; install it, then start this again")
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=DOCS.parent,
            env={**os.environ, "TL_HOME": home, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            address = next(found[0] for line in process.stdout or () if (found := _ADDRESS.search(line)))
            with sync_playwright() as playwright:
                opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
                walk(opened.new_page(viewport=WIDE), address)
                opened.close()
        finally:
            process.terminate()
            process.wait()
    return 0


def walk(page: Page, address: str) -> None:
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("tab", name="Your images").click()
    page.click("#data-digits")
    page.wait_for_selector("#findings .tl-bars")
    page.wait_for_selector("#classes-cards img")
    take(page, "images")
    page.click("#findings-go:enabled")
    page.wait_for_selector("#train-reasons table")
    page.click("#train-start")
    page.click("#watch-to-results")
    page.wait_for_selector("#results-matrix button")
    page.wait_for_selector("#results-mistakes img")
    take(page, "results")


def take(page: Page, name: str) -> None:
    page.wait_for_function("[...document.images].every(image => !image.offsetParent || image.complete)")
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    page.evaluate("document.fonts.ready")
    page.screenshot(path=DOCS / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
