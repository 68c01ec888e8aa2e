#!/usr/bin/env bash
# OpenAI's Python client takes whatever comes with status 200 for an answer: a page to log in is a completion (a str),
# JSON without choices is one whose choices are None, and a stream that ends half-way ends without an error.
#
# Versions: openai 3.54.0, Python 3.11.
# Expected: an error that says what came, as a client whose answers have types would give.
# Seen: no error. The answer is built without validation (openai/_models.py, `construct`), what is not declared as JSON
# is returned as text (openai/_response.py), and a stream is over when the connection is (openai/_streaming.py); only
# a finish_reason says that an answer is whole. A request to a gateway whose session has ended so looks like success
# until something is made of the answer.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.54.0

cat >"$folder/seen.py" <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from openai import OpenAI

HALF = b'data: {"id":"1","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,"delta":{"content":"The answer is not"}}]}\n\n'
ANSWERS = {
    "page": ("text/html", b"<html>Please log in</html>"),
    "json": ("application/json", b'{"status": "Please log in"}'),
    "half": ("text/event-stream", HALF),
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        kind, content = ANSWERS[self.path.split("/")[1]]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()


def asked(what, **options):
    client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/{what}", api_key="none", max_retries=0)
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], **options)


page, json = asked("page"), asked("json")
pieces = list(asked("half", stream=True))
text = "".join(piece.choices[0].delta.content for piece in pieces)
reasons = {piece.choices[0].finish_reason for piece in pieces}
print(f"a page to log in:     {type(page).__name__} {page!r}")
print(f"JSON without choices: {type(json).__name__}, choices={json.choices!r}")
print(f"half of a stream:     {text!r}, finish reasons {reasons}, and no error")
as_described = isinstance(page, str) and json.choices is None and text and reasons == {None}
raise SystemExit(0 if as_described else 1)
PYTHON
"$folder/venv/bin/python" "$folder/seen.py"
