"""Two processes that write to one folder at the same time."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.project import PROJECT_ROOT

NAMES = ("first", "second")


def write_at_once(script: str, folder: Path) -> None:
    """Run a script in two processes at once; both must succeed without warnings.

    Args:
        script: Code with the arguments folder and name. It prints `ready`, reads a line, and then writes.
        folder: The folder that both processes share.
    """
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, str(folder), name],
            cwd=PROJECT_ROOT,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for name in NAMES
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        with ThreadPoolExecutor(len(writers)) as pool:
            outputs = list(pool.map(lambda writer: writer.communicate("go\n", timeout=120), writers))
        assert [writer.returncode for writer in writers] == [0, 0], outputs
        assert [problems for _, problems in outputs] == ["", ""]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
