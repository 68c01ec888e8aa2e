"""Writes `.env.example` and the reference page of all settings, from the classes that declare them.

`python -m ledgerline.settings.reference` writes both into the working folder.
"""

import inspect
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ledgerline.settings.declaration import DeclaredSettings, Setting, settings_of
from ledgerline.settings.libraries import LibraryVariables
from ledgerline.settings.pipelines import PipelineVariables
from ledgerline.settings.serving import ServingVariables
from ledgerline.settings.unknown import OTHER_VARIABLES

EXAMPLE = Path(".env.example")
PAGE = Path("docs/reference/settings.md")
WIDTH = 110

EXAMPLE_START = """\
# All settings with their defaults. Copy to .env what you want to change; a variable of the shell wins.
# LEDGERLINE_PROJECT is not in this file: it names the folder of the project for processes that work
# elsewhere.
"""
PAGE_START = """\
# Settings

Settings are environment variables. `ledgerline` and the code location also read them from the file `.env` in
the project's folder; a variable of the environment wins over the file, and an empty one counts as not set.
The table `[tool.ledgerline]` of `pyproject.toml` sets the defaults that are marked so. `ledgerline settings`
lists the values in force and where each comes from. A variable that begins with `LEDGERLINE_` and is not
listed here is ignored, with a warning that names the nearest setting.
"""


SETTINGS = tuple(
    {
        setting.name: setting
        for cls in (PipelineVariables, ServingVariables, LibraryVariables)
        for setting in settings_of(cls)
    }.values()
)


def sections() -> Iterator[tuple[type[DeclaredSettings], Iterator[Setting]]]:
    """Return the settings by the class that declares them."""
    return groupby(SETTINGS, key=lambda setting: setting.owner)


def example() -> str:
    """Return the text of `.env.example`."""
    parts = [EXAMPLE_START]
    for owner, settings in sections():
        parts.append(f"\n# --- {_title(owner)} ---\n")
        for setting in settings:
            comment, value = _meaning(setting), setting.default
            if set(" $") & set(value):
                comment, value = f"{comment} Default: {value}.", ""
            lines = textwrap.wrap(comment, WIDTH, break_long_words=False, break_on_hyphens=False)
            parts.append("\n" + "".join(f"# {line}\n" for line in lines) + f"# {setting.name}={value}\n")
    return "".join(parts)


def page() -> str:
    """Return the text of the reference page."""
    parts = [PAGE_START]
    for owner, settings in sections():
        parts.append(f"\n## {_title(owner)}\n\n{_introduction(owner)}")
        parts.append("| Variable | Default | Meaning |\n| --- | --- | --- |\n")
        parts += [
            f"| `{setting.name}` | {_default(setting)} | {_meaning(setting)} |\n" for setting in settings
        ]
    parts.append("\n## Other variables\n\n| Variable | Meaning |\n| --- | --- |\n")
    parts += [f"| `{name}` | {meaning} |\n" for name, meaning in OTHER_VARIABLES.items()]
    return "".join(parts)


def _title(owner: type[DeclaredSettings]) -> str:
    return inspect.getdoc(owner).split("\n")[0].rstrip(".")  # pyright: ignore[reportOptionalMemberAccess]


def _introduction(owner: type[DeclaredSettings]) -> str:
    _, _, rest = (inspect.getdoc(owner) or "").partition("\n\n")
    text = rest.partition("Example:")[0].strip()
    return f"{text}\n\n" if text else ""


def _default(setting: Setting) -> str:
    default = setting.default
    return default if not default or " " in default or "`" in default else f"`{default}`"


def _meaning(setting: Setting) -> str:
    kind = setting.allowed if "number" in setting.allowed else ""  # The descriptions explain other values.
    unit = f"in {setting.unit}" if setting.unit else ""
    details = ", ".join(filter(None, (kind, unit, "secret" if setting.hides == "value" else "")))
    return f"{setting.description} {details[:1].upper()}{details[1:]}.".removesuffix(" .")


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
