"""Writes a new project: the rendered files of templates/, and example rows."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ledgerline.errors import LedgerlineError
from ledgerline.new_project.kind import Kind
from ledgerline.new_project.made_rows import made_rows

TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".jinja"
HIDDEN = {"gitignore": ".gitignore"}  # a template with the name .gitignore would hide others from git

NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")


class NewProjectError(LedgerlineError):
    """Raised when a project cannot be written. No file was changed."""


def write_project(folder: Path, kind: Kind, version: str) -> Path:
    """Write a project atomically into a folder that does not exist or is empty.

    Args:
        folder: Folder of the project. Its last part is the name of the project.
        kind: Kind of prediction of the model.
        version: Version of this library that the project needs.

    Returns:
        The folder, as an absolute path.

    Raises:
        NewProjectError: The name cannot be used, the folder is not empty, or it cannot be written.

    Example:
        >>> folder = write_project(Path("oven-demand"), Kind.REGRESSION, "0.2.0")
        >>> sorted(path.name for path in folder.glob("*.toml"))
        ['pyproject.toml']
    """
    folder = Path(os.path.realpath(folder))
    name = folder.name
    if not NAME.fullmatch(name):
        raise NewProjectError(
            f"{name!r} cannot be the name of a project, of its distribution and of its model.",
            "A name has up to 64 letters (a to z), digits, - and _; it begins with a letter and ends in a "
            "letter or a digit, as oven-demand.",
        )
    files = rendered(name, kind, version)
    try:
        _require_empty(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as scratch:
            whole = Path(scratch, name)
            for path, text in files.items():
                (whole / path).parent.mkdir(parents=True, exist_ok=True)
                (whole / path).write_text(text, encoding="utf-8")
            _put(whole, folder)
    except OSError as error:
        raise NewProjectError(
            f"{folder} cannot be written: {error.strerror}.", "Nothing was changed; choose another folder."
        ) from error
    return folder


def rendered(name: str, kind: Kind, version: str) -> Mapping[str, str]:
    """Return the text of each file of a project by its path."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 (the files are programs, not web pages)
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values = {
        "name": name,
        "model": re.sub(r"\W", "_", name).lower(),
        "kind": kind.value,
        "outcome": kind.outcome,
        "question": kind.question,
        "fact": kind.fact,
        "method": "predict_proba" if kind.is_classified else "predict",
        "estimator": f"HistGradientBoosting{'Classifier' if kind.is_classified else 'Regressor'}",
        "version": version,
    }
    paths = {name: name.removesuffix(SUFFIX) for name in templates.list_templates() if name.endswith(SUFFIX)}
    files = {
        HIDDEN.get(path, path): templates.get_template(template).render(values)
        for template, path in paths.items()
    }
    return files | {"data/rows.csv": made_rows(kind)}


def _require_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if os.path.lexists(folder):
        what = "is not empty" if folder.is_dir() else "is not a folder"
        raise NewProjectError(
            f"{folder} {what}.", "Nothing was changed; choose a folder that does not exist."
        )


def _put(whole: Path, folder: Path) -> None:
    """Move a written project to its folder. An empty folder is kept: it may be the working folder."""
    if not folder.exists():
        whole.rename(folder)
        return
    _require_empty(folder)  # Another process may have written into it.
    for path in whole.iterdir():
        path.rename(folder / path.name)
