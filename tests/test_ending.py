"""A process of ours ends with its code, all it said, its threads and its exit handlers, and nothing Python adds."""

import os
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


def test_output_that_nobody_reads_any_more_is_python_s_to_say() -> None:
    program = "import sys; from tl_core.ending import end_with; end_with(lambda: print('x') or len(sys.stdin.read()))"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        env=buffered,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin and child.stdout and child.stderr
    child.stdout.close()
    child.stdin.close()
    error = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait() == 120, "Python's own code for what could not be written at the end"
    assert "BrokenPipeError" in error
