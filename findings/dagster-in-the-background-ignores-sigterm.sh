#!/usr/bin/env bash
# Dagster's servers ignore SIGTERM if they were started with SIGINT ignored, as `server &` in a script starts them.
#
# dagster 1.13.27; Python 3.11.
# Expected: SIGTERM ends `dagster api grpc`, however it was started: only SIGINT is ignored in the background.
# Seen: dagster/_utils/interrupts.py, `setup_interrupt_handlers`, gives SIGTERM the handler that SIGINT has at that
# moment. A shell without job control starts a background command with SIGINT ignored (POSIX, "Asynchronous Lists"),
# so that SIGTERM becomes ignored as well, for the server and all that it starts. An orderly stop (a service's
# script, a test's teardown) then waits until it gives up. The same server in the foreground ends within a second.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27

cat >"$folder/definitions.py" <<'PYTHON'
import dagster as dg

defs = dg.Definitions()
PYTHON

# Starts the server with SIGINT as given ("SIG_IGN" or "SIG_DFL"), sends SIGTERM when it answers, and says how it went.
cat >"$folder/ask.py" <<'PYTHON'
import os
import signal
import socket
import subprocess
import sys
import time

how, folder = sys.argv[1:]
with socket.create_server(("127.0.0.1", 0)) as free:
    port = str(free.getsockname()[1])
signal.signal(signal.SIGINT, getattr(signal, how))
server = subprocess.Popen(
    [f"{folder}/venv/bin/dagster", "api", "grpc", "-h", "127.0.0.1", "-p", port, "-f", f"{folder}/definitions.py"],
    cwd=folder,
    env={**os.environ, "DAGSTER_HOME": "", "DAGSTER_DISABLE_TELEMETRY": "yes"},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
try:
    deadline = time.monotonic() + 120
    while subprocess.run(
        [f"{folder}/venv/bin/dagster", "api", "grpc-health-check", "-h", "127.0.0.1", "-p", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).returncode:
        assert server.poll() is None and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.5)
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(30)
        print("ends")
    except subprocess.TimeoutExpired:
        print("goes on")
finally:
    server.kill()
    server.wait()
PYTHON

foreground=$("$folder/venv/bin/python" "$folder/ask.py" SIG_DFL "$folder")
background=$("$folder/venv/bin/python" "$folder/ask.py" SIG_IGN "$folder")
echo "Started with SIGINT as usual, and sent SIGTERM: the server $foreground."
echo "Started with SIGINT ignored, and sent SIGTERM: the server $background (for 30 s)."
[[ $foreground == ends && $background == "goes on" ]]
