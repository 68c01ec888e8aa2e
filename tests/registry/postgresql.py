"""A real PostgreSQL on a folder that is thrown away. Debian's package is `postgresql`."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.ports import HOST, unused_port

USER = "postgres"  # its programs refuse to be started by root
START_SECONDS = 60
POLL_SECONDS = 0.05


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is; Debian keeps them off PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@contextmanager
def database() -> Iterator[str]:
    """URI of an empty database; with it, the server ends."""
    initdb, postgres = program("initdb"), program("postgres")
    assert initdb is not None
    assert postgres is not None
    user = USER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="ledgerline-postgres-") as parent:
        folder = Path(parent, "data")
        if user is not None:
            shutil.chown(parent, user)
        subprocess.run(
            [initdb, "-D", str(folder), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True,
            user=user,
            cwd=parent,
            stdout=subprocess.DEVNULL,
        )
        port = unused_port()
        options = {"listen_addresses": HOST, "port": port, "unix_socket_directories": "", "fsync": "off"}
        log = Path(parent, "log").open("wb")  # noqa: SIM115 (as long as the server)
        server = subprocess.Popen(
            [postgres, "-D", str(folder), *(f"--{name}={value}" for name, value in options.items())],
            user=user,
            cwd=parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process, which then ends the server
        )
        try:
            _wait_until_ready(port, server, Path(parent, "log"))
            yield f"postgresql+psycopg://{USER}@{HOST}:{port}/postgres"
        finally:
            log.close()
            server.send_signal(signal.SIGINT)  # "fast": without waiting for clients
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=15)
            server.kill()
            server.wait(timeout=15)


def _wait_until_ready(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + START_SECONDS
    while True:
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(host=HOST, port=port, user=USER, dbname=USER),
        ):
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(POLL_SECONDS)
