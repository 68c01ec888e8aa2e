"""Writes the lock files of this folder: each holds only what it adds to the files that it names with `-r`.

Versions stay as they are unless pyproject.toml asks for others; with `--upgrade`, the newest are chosen. The
files hold the hash of every distribution and no address of an index.
"""

import argparse
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).parent
OPTIONS = (
    "--quiet",
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-annotate",
    "--no-header",
)
RUNTIME = ("pyproject.toml", "--all-extras", "--group=pipelines")
DEVELOPMENT = (*RUNTIME, "--group=build", "--group=docs", "--group=dev", "--group=peers", "--group=installer")


@dataclass(frozen=True)
class Layer:
    """A lock file.

    Attributes:
        name: Name of the file without its suffix.
        content: Comment in its first line.
        requirements: Arguments of `uv pip compile` that select its packages.
        below: Names of the layers that it is installed on top of.
    """

    name: str
    content: str
    requirements: tuple[str, ...]
    below: tuple[str, ...] = ()


LAYERS = (
    Layer("shared", "The part of the core that serving needs as well.", ("--group=shared",)),
    Layer(
        "core", "The core and the example: `make run`.", ("pyproject.toml", "--extra=example"), ("shared",)
    ),
    Layer(
        "serving", "The extra `serving`; with the layer below, its image.", ("--group=serving",), ("shared",)
    ),
    Layer("ui", "The extra `ui`: `make dev`.", ("pyproject.toml", "--extra=ui"), ("core", "serving")),
    Layer("agent", "The extra `agent`: `make agent`.", ("pyproject.toml", "--extra=agent"), ("core",)),
    Layer("pipelines", "All other extras, for the image of the pipelines.", RUNTIME, ("ui", "agent")),
    Layer("build", "The builder of the wheel.", ("--group=build",)),
    Layer("docs", "The generator of the site: `make docs`.", ("--group=docs",), ("core",)),
    Layer("dev", "Tests and checks.", ("--group=dev",), ("pipelines", "build", "docs")),
    Layer("bench", "The peers in benchmarks: `make bench`.", ("--group=peers",), ("dev",)),
    Layer("installer", "The installer inside the images.", ("--group=installer",)),
)
# MLServer needs an older FastAPI. It has the versions of these packages in common with everything else.
MLSERVER = Layer(
    "mlserver", "MLServer, in a separate environment: tests compare serving with it.", ("--group=mlserver",)
)
SAME_IN_MLSERVER = {
    "mlflow",
    "mlflow-skinny",
    "mlflow-tracing",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "skops",
}


def compile_pins(
    uv: str, requirements: Iterable[str], *, versions: str = "", constraints: Iterable[str] = ()
) -> list[str]:
    """Resolve requirements to pins, each with its hashes.

    Args:
        uv: The program.
        requirements: Arguments of `uv pip compile` that select packages.
        versions: Lock file whose versions are preferred.
        constraints: Pins that must hold.
    """
    with TemporaryDirectory() as folder:
        output, constraint = Path(folder, "output.lock"), Path(folder, "constraint.lock")
        output.write_text(versions)
        constraint.write_text("".join(constraints))
        command = [uv, "pip", "compile", *requirements, *OPTIONS, "--constraint", constraint, "-o", output]
        subprocess.run(command, cwd=FOLDER.parent, check=True, stdout=subprocess.DEVNULL)
        return pins(output.read_text())


def pins(text: str) -> list[str]:
    """Return the pins of a lock file, each with the lines of its hashes."""
    return re.findall(r"^[a-z0-9].*\n(?:    .*\n)*", text, re.MULTILINE)


def read(name: str) -> str:
    """Return the text of a lock file; empty if it does not exist."""
    file = FOLDER / f"{name}.lock"
    return file.read_text() if file.exists() else ""


def write(layer: Layer, added: Iterable[str]) -> None:
    """Write the lock file of a layer."""
    below = "".join(f"-r {name}.lock\n" for name in layer.below)
    (FOLDER / f"{layer.name}.lock").write_text(f"# {layer.content}\n{below}{''.join(added)}")


def main() -> None:
    """Write all lock files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", default="uv", help="the program that resolves versions")
    parser.add_argument("--upgrade", action="store_true", help="choose the newest versions")
    arguments = parser.parse_args()

    current = "" if arguments.upgrade else "".join("".join(pins(read(layer.name))) for layer in LAYERS)
    # The runtime is resolved first, so that no tool of development holds it back.
    runtime = compile_pins(arguments.uv, RUNTIME, versions=current)
    everything = compile_pins(arguments.uv, DEVELOPMENT, versions=current, constraints=runtime)

    contents: dict[str, set[str]] = {}
    for layer in LAYERS:
        below = set[str]().union(*(contents[name] for name in layer.below))
        compiled = compile_pins(arguments.uv, layer.requirements, constraints=everything)
        write(layer, [pin for pin in compiled if pin not in below])
        contents[layer.name] = below | set(compiled)

    same = [pin for pin in everything if pin.partition("==")[0] in SAME_IN_MLSERVER]
    previous = "" if arguments.upgrade else read(MLSERVER.name)
    write(MLSERVER, compile_pins(arguments.uv, MLSERVER.requirements, versions=previous, constraints=same))


if __name__ == "__main__":
    main()
