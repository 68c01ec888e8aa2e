"""Takes secrets out of what is recorded. Whether content is recorded at all: recording.py."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"

# What names itself a secret, and what is known to be one by its form. How long a part may be is limited, or a
# text of many words with hyphens would take minutes.
_FORMS = [
    # user:password@host in an address
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@:]{0,200}:[^\s/@]{1,500}(?=@)", re.IGNORECASE),
    # A word of prose may follow "basic"; credentials are not all in small letters.
    re.compile(r"(?P<keep>\b(?i:bearer\s+|basic\s+(?-i:(?=[a-z]*[A-Z0-9+/=]))))[A-Za-z0-9._~+/=-]{8,}"),
    # password=..., "api_key": "...", token: ..., also in CSV, and in JSON within JSON
    re.compile(
        r"(?P<keep>\b[\w-]{0,40}(?:passwo?r?d|passwd|passphrase|secret|api[_-]?key|access[_-]?key|token"
        r"|private[_-]?key)\b(?:\\*[\"'])?\s*[:=]\s*(?P<quote>\"\"(?=\w)|\\*[\"'])?)"
        r"(?(quote)(?:(?!(?P=quote))(?:\\.|.))+|[^\s\"',;&}]{4,})",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<keep>)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    re.compile(r"(?P<keep>)\b(?:sk|pk|rk)[-_](?=[A-Za-z_-]{0,200}\d)[A-Za-z0-9_-]{16,}"),
    re.compile(
        r"(?P<keep>)\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{20,})"
    ),
    re.compile(r"(?P<keep>)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"(?P<keep>)\bxox[abprs]-[\w-]{10,}"),
    re.compile(r"(?P<keep>)\bAIza[\w-]{30,}"),
    re.compile(r"(?P<keep>)\beyJ[\w-]{8,4000}\.[\w-]{8,4000}\.[\w-]{8,}"),
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
        """One that knows these secrets, also as JSON and addresses write them.

        The longest comes first, since one may be part of another.
        """
        usable = {
            written
            for secret in known
            if secret and len(secret) >= SHORTEST_SECRET
            for written in (
                secret,
                json.dumps(secret)[1:-1],
                json.dumps(secret, ensure_ascii=False)[1:-1],
                quote(secret),
                quote(secret, safe=""),
                quote_plus(secret),
            )
        }
        return cls(tuple(sorted(usable, key=lambda written: (-len(written), written))))

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for secret in self.known:
            text = text.replace(secret, REDACTED)
        for form in _FORMS:
            text = form.sub(lambda found: found["keep"] + REDACTED, text)
        return text
