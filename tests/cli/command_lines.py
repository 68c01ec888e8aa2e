"""The command line as a program, and the type of the function that runs it in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

LEDGERLINE = Path(sys.executable).with_name("ledgerline")

Ledgerline = Callable[..., Result]
