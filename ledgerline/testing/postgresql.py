"""Starts a real PostgreSQL server in a temporary folder. The package in Debian is `postgresql`."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until

USER = "postgres"  # its programs refuse to be started by root
START_SECONDS = 60
STOP_SECONDS = 15


def program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL; in Debian they are not on PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@contextmanager
def database() -> Iterator[str]:
    """Yield the URI of an empty database on a server that is stopped afterwards."""
    with server() as running:
        yield running.uri


@contextmanager
def server(**options: object) -> Iterator["Server"]:
    """Yield an empty server with these options, which is stopped afterwards."""
    user = USER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="ledgerline-postgres-") as parent:
        if user is not None:
            shutil.chown(parent, user)
        made = Server(Path(parent), unused_port(), user, options)
        made.make_folder()
        made.start()
        try:
            yield made
        finally:
            made.stop()


def run_script(uri: str, script: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script with psql and these environment variables, up to the first statement that fails."""
    psql = program("psql")
    assert psql is not None
    plain = uri.replace("postgresql+psycopg", "postgresql")
    return subprocess.run(
        [psql, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-d", plain, "-f", script],
        env={"PATH": os.defpath, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class Server:
    """A server that can be stopped, and started again on the same data."""

    parent: Path  # of its data and its log
    port: int
    user: str | None  # that runs the server; None for the current user
    options: dict[str, object]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def uri(self) -> str:
        """The URI of its first database, for the administrator."""
        return f"postgresql+psycopg://{USER}@{HOST}:{self.port}/postgres"

    @property
    def log(self) -> Path:
        """The file of its log."""
        return self.parent / "log"

    def make_folder(self) -> None:
        """Create the folder of its data."""
        initdb = program("initdb")
        assert initdb is not None
        options = ["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [initdb, "-D", str(self.parent / "data"), *options],
            check=True,
            user=self.user,
            cwd=self.parent,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        postgres = program("postgres")
        assert postgres is not None
        options = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            **self.options,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [postgres, "-D", str(self.parent / "data"), *arguments],
                user=self.user,
                cwd=self.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process, which then ends the server
            )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Stop the server as containers do: it closes the connections of clients and ends."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=STOP_SECONDS)
            self._process.kill()
            self._process.wait(timeout=STOP_SECONDS)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        import psycopg

        def accepts_connections() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start: {self._end_of_log()}")
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(host=HOST, port=self.port, user=USER, dbname=USER),
            ):
                return True
            return False

        try:
            wait_until(accepts_connections, "PostgreSQL accepts connections", START_SECONDS)
        except AssertionError as error:
            error.add_note(self._end_of_log())
            raise

    def _end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]
