"""A process of ours ends with its code, all it said, its threads and its exit handlers, and nothing Python adds."""

import subprocess
import sys

import pytest

AT_THE_END = """
import atexit, gc, sys, threading, time
from tl_core.ending import end_with

class Left:
    def __del__(self):
        print("taken apart")

left = Left()
left.itself = left

def work():
    atexit.register(lambda: print("handler"))
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("said", end=" ")
    {ending}

end_with(work)
"""


def end(ending: str) -> subprocess.CompletedProcess[str]:
    program = AT_THE_END.format(ending=ending)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("ending", "code", "error"),
    [
        ("return 0", 0, ""),
        ("return 2", 2, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('why')", 1, "why\n"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("raise ValueError('a fault')", 1, "ValueError: a fault"),
    ],
)
def test_code_words_threads_and_handlers_are_as_ever(ending: str, code: int, error: str) -> None:
    ended = end(ending)
    assert ended.returncode == code
    assert ended.stdout.replace("said ", "").split() == ["thread", "handler"], "and nothing is taken apart"
    assert ended.stdout.startswith("said")
    assert error in ended.stderr
    assert ("Traceback" in ended.stderr) == ("Error" in error or "Keyboard" in error)


def test_output_that_nobody_reads_any_more_is_no_crash() -> None:
    reader = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c 'from tl_core.ending import end_with\n"
         "def work():\n print(\"x\" * 1_000_000)\n return 0\nend_with(work)' | head -c 1; echo ${PIPESTATUS[0]}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert reader.stdout.splitlines()[0].startswith("x")
    assert "Fatal" not in reader.stderr
