"""A process that asks a model without a server: what scikit-learn alone takes; and how it is asked.

    python -m benchmarks.serving_alone MODEL_FOLDER ROWS_FILE

For each number it reads it predicts so often, and prints how many seconds each prediction took.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.checkout import PROJECT_ROOT
from benchmarks.processes import STOP_SECONDS, BenchmarkError, environment_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Alone:
    """The process.

    Attributes:
        process: It.
    """

    process: "subprocess.Popen[str]"

    def seconds(self, times: int) -> list[float]:
        """How long each of so many predictions takes.

        Raises:
            BenchmarkError: It has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{times}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise BenchmarkError("The process that predicts has ended.") from None
        if not (line := self.process.stdout.readline()):
            raise BenchmarkError("The process that predicts has ended.")
        return json.loads(line)


@contextmanager
def alone(model: Path, rows: Path, additions: Mapping[str, str]) -> Iterator[Alone]:
    """The process, for as long as the body runs.

    Args:
        model: The files of a version.
        rows: What `write_rows` wrote.
        additions: Variables of its environment.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving_alone", str(model), str(rows)],
        cwd=PROJECT_ROOT,
        env=environment_of(additions),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches who started it, which ends it
    )
    try:
        yield Alone(process)
    finally:
        process.kill()
        process.communicate(timeout=STOP_SECONDS)


def write_rows(rows: "pd.DataFrame", file: Path) -> None:
    """Leave a frame for the process."""
    rows.to_parquet(file)


def main() -> None:
    """Predict as often as is asked for."""
    import pandas as pd

    from ledgerline.mlflow_store import model_files

    model, rows = model_files.load(Path(sys.argv[1])), pd.read_parquet(sys.argv[2])
    # As the model takes them, and not with the gaps of Parquet.
    texts = rows.select_dtypes(exclude="number").columns
    rows = rows.astype(dict.fromkeys(texts, "object"))
    rows = rows.where(rows.notna(), float("nan"))
    for line in sys.stdin:
        taken = []
        for _ in range(int(line)):
            started = time.perf_counter()
            model.answer(rows)
            taken.append(time.perf_counter() - started)
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
