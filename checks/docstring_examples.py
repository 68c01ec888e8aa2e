"""An extension of griffe for mkdocs.yml, which displays the examples of docstrings as code."""

import re
from typing import Any

import griffe

SINGULAR = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class DocstringExamples(griffe.Extension):
    """Renames a section `Example` to `Examples`, in which griffe displays prompts as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the sections of a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = SINGULAR.sub(r"\1Examples:", obj.docstring.value)
