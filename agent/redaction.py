"""Takes secrets out of what is recorded. Whether content is recorded at all: recording.py."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

REDACTED = "[redacted]"

# What names itself a secret, and what is known to be one by its form.
_FORMS = [
    # user:password@host in an address
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+(?=@)", re.IGNORECASE),
    re.compile(r"(?P<keep>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    # password=..., "api_key": "...", token: ...
    re.compile(
        r"(?P<keep>\b[\w-]*(?:passwo?r?d|passwd|secret|api[_-]?key|access[_-]?key|(?:auth|access|refresh|bearer|api)"
        r"[_-]?token|private[_-]?key)\b[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}]{4,}",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<keep>)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    re.compile(r"(?P<keep>)\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9]{16,}\b"),
    re.compile(
        r"(?P<keep>)\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{20,})"
    ),
    re.compile(r"(?P<keep>)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"(?P<keep>)\bxox[abprs]-[\w-]{10,}"),
    re.compile(r"(?P<keep>)\bAIza[\w-]{30,}"),
    re.compile(r"(?P<keep>)\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"),
]
SHORTEST_SECRET = 6  # a shorter one would be found in ordinary words


@dataclass(frozen=True)
class Redaction:
    """Replaces secrets in texts.

    Attributes:
        known: Secrets of this process, whatever they look like: tokens and passwords of its settings.
    """

    known: tuple[str, ...] = ()

    @classmethod
    def of(cls, known: Iterable[str | None]) -> "Redaction":
        """One that knows these secrets; the longest first, since one may be part of another."""
        usable = {secret for secret in known if secret and len(secret) >= SHORTEST_SECRET}
        return cls(tuple(sorted(usable, key=len, reverse=True)))

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for secret in self.known:
            text = text.replace(secret, REDACTED)
        for form in _FORMS:
            text = form.sub(lambda found: found["keep"] + REDACTED, text)
        return text
