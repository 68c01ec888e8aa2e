"""An extension of griffe for mkdocs.yml: shows the examples of docstrings as code."""

import re
from typing import Any

import griffe

SINGULAR = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class DocstringExamples(griffe.Extension):
    """Names a section `Example` as griffe knows it: `Examples`, whose prompts are code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the sections of a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = SINGULAR.sub(r"\1Examples:", obj.docstring.value)
