"""Finds secrets in a text by the name beside them: `password=...`, JSON, YAML, reprs, command lines.

secret_names.py recognises the names. The same words in the sentences of error messages, as in "Invalid
password: must have a digit", are kept.

The time is linear in the length of the text: a value is read only once.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from ledgerline.cleaning.secret_forms import QUOTE, REDACTED
from ledgerline.cleaning.secret_names import is_secret_name, is_strong_name

_SEPARATOR = r"[ \t]{0,20}(?P<separator>=>|:=|={1,3}|!=|:|%3[ad])[ \t]{0,20}"

_NAME = re.compile(
    r"(?<![\w.-])(?P<name>(?:api|access|private|secret|account|client|shared)[ ](?:access[ ])?"
    r"(?:key|token|secret)(?![\w-])|[\w.$-]+(?![\w.$-]))"
    rf"(?P<closed>(?:{QUOTE})?\]?){_SEPARATOR}",
    re.IGNORECASE,
)
_TRIGGER = re.compile(
    r"pass|pwd|kennwort|secret|token|key|auth|cred|dsn|cookie|bearer|sas|conn|sig|jwt|otp|phrase|codes",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?P<keep>(?<![\w-])--(?P<name>[\w-]{1,60})[ ]{1,3})(?![-\[])(?P<value>[^\s\"']+)")

# {"name": "DB_PASSWORD", "value": "..."}, as in the environment of a container.
_NAMING = frozenset(("name", "key", "variable", "header"))
_NAMED = re.compile(
    rf"(?:{QUOTE})?\s{{0,5}},?\s{{0,20}}(?:{QUOTE})?value(?:{QUOTE})?{_SEPARATOR}", re.IGNORECASE
)

_OPENING = re.compile(r"(?P<prefix>[bBrRfFuUN]{0,2})(?P<quote>\"\"(?=[\w\[])|\\{0,7}[\"'`])")
_CALL = re.compile(r"[A-Za-z_][\w.]{0,100}(?:\([^()\r\n]{0,500}\)|\[[^\[\]\r\n]{0,500}\])(?![\w(\[])")
# A comma, an ampersand or a bracket may be part of a password, unless the next pair or the end follows.
_BARE = re.compile(
    r"(?:[^\s\"'`,;&})\]<>\\]|\\(?![nrt\"'\\])"
    r"|[,;&})\]](?=[^\s\"'}),;\]])(?!\s{0,3}[\w.-]{1,60}\s{0,2}[=:]))+"
)
_LINE = re.compile(r"[^\r\n]*")
_BRACKETS = re.compile(r"[\[\]{}()]")

# These values are placeholders for a secret, or name its type.
_NO_SECRET = re.compile(
    r"\*+|\.{3}|…|<[^<>]*>?|\$\{?\{?[\w.: -]+\}{0,2}|\{{1,2}\s?[\w.!:]*\s?\}{0,2}|%\(?\w+\)?s?|%s|\?|:\w+"
    r"|none|null|nil|true|false|undefined|str|string|int|bytes|bool|any|object|secretstr|optional\[.*"
    r"|str\s?\|.*|hidden|masked|redacted|",
    re.IGNORECASE | re.DOTALL,
)
_PLACEHOLDER = re.compile(r"\{{1,2}\s?[\w.!:]*\s?\}{1,2}|\[redacted\]")
_ALREADY = re.compile(r"(?:[\w-]{1,30}\s{1,3})?\[redacted\]")
_NUMBERS = re.compile(r"[\d\s.,:\[\](){}-]*")
# Messages continue with these words after a name and a colon.
_MESSAGE = re.compile(
    r"(?:must|should|is|are|was|has|have|not|no|cannot|can't|could|expected|required|field|invalid|missing|too|does"
    r"|did|may|needs?|value|input|authentication|failed|unable|unknown|unexpected|expired|at least)\b",
    re.IGNORECASE,
)
_PROSE = re.compile(r"[A-Za-z][a-z]*[.,!]?\s+[A-Za-z(\[]")
_WORD = re.compile(r"[A-Za-z]+[.,!]?")
_OF_A_PARSER = re.compile(
    r"(?:unexpected|invalid|illegal|unknown|next|bad|expected|expecting|last|first|end|stop|near)\s+$",
    re.IGNORECASE,
)
_MAX_LEAD = 24  # characters before a name that are read to decide whether a pair begins there
_BEGINS = ("\n", "\r", "{", "[", "(", ",", ";", "&", "?", "|")


def without_pairs(text: str) -> str:
    """Return the text with `[redacted]` in place of each value whose name is that of a secret."""
    text = _OPTION.sub(_option, text)
    return _Pairs(text).redacted() if _TRIGGER.search(text) else text


def _option(match: re.Match[str]) -> str:
    return match["keep"] + REDACTED if is_secret_name(match["name"]) else match[0]


@dataclass(frozen=True)
class _Value:
    """The indices of a value in the text, without its quotes."""

    start: int
    end: int
    is_literal: bool  # quotes or brackets mark its end


class _Pairs:
    """Reads the pairs of names and values in a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._closings: dict[int, int] | None = None

    def redacted(self) -> str:
        kept: list[str] = []
        done = at = 0
        while (match := _NAME.search(self._text, at)) is not None:
            at = match.end()
            value = self._secret(match)
            if value is not None:
                kept += self._text[done : value.start], REDACTED
                done = at = value.end
        return "".join([*kept, self._text[done:]])

    def _secret(self, match: re.Match[str]) -> _Value | None:
        """Return the value after a name if it is a secret."""
        name, is_colon = match["name"], match["separator"] == ":"
        if name.lower() in _NAMING:
            return self._named(self._read(match.end()))
        # In a log, `google.auth.transport: ...` is the name of a logger.
        if not is_secret_name(name.rpartition(".")[2] if is_colon else name):
            return None
        value = self._read(match.end())
        if value is None:
            return self._block(match) if is_colon and self._begins_line(match.start()) else None
        if is_colon and is_strong_name(name) and not value.is_literal and self._begins_line(match.start()):
            value = self._rest_of_line(value.start)
        return None if self._is_harmless(match, value) else value

    def _is_harmless(self, match: re.Match[str], value: _Value) -> bool:
        name, text = match["name"].lower(), self._text[value.start : value.end]
        if _NO_SECRET.fullmatch(text) or _ALREADY.match(self._text, value.start):
            return True
        if name.endswith(("tokens", "pass")) and _NUMBERS.fullmatch(text):
            return True  # a count of tokens
        if name in ("token", "tokens") and match["separator"] == ":":
            lead = self._text[max(0, match.start() - _MAX_LEAD) : match.start()]
            if _OF_A_PARSER.search(lead):
                return True
        if value.is_literal:
            return False
        return self._is_prose(match, value) if match["separator"] == ":" else self._is_code(name, value)

    def _is_code(self, name: str, value: _Value) -> bool:
        """Return whether a value is a variable, as in `connect(password=self.password)`."""
        text = self._text[value.start : value.end].lower()
        is_alike = text.endswith(name.rpartition(".")[2])
        return is_alike and ("." in text or self._text[value.end : value.end + 1] in (",", ")"))

    def _is_prose(self, match: re.Match[str], value: _Value) -> bool:
        """Return whether a value after a colon is the rest of a message."""
        is_strong = is_strong_name(match["name"])
        is_word = _WORD.fullmatch(self._text, value.start, value.end) is not None
        if match.end() == match.end("separator"):  # `password:hunter2`, but also a module in a log
            return is_word and not is_strong
        if _MESSAGE.match(self._text, value.start):
            return True
        if self._begins_line(match.start()):
            return not is_strong and _PROSE.match(self._text, value.start) is not None
        if is_strong:
            return not self._begins(match.start()) and _PROSE.match(self._text, value.start) is not None
        return is_word and not self._begins(match.start())

    def _rest_of_line(self, start: int) -> _Value:
        line = self._text[start : self._end_of_line(start)]
        return _Value(start, start + len(line.rstrip(" \t\"'`,}])")), is_literal=False)

    def _named(self, naming: _Value | None) -> _Value | None:
        """Return the value of a variable if the name of the variable means a secret."""
        if naming is None or not is_secret_name(self._text[naming.start : naming.end]):
            return None
        match = _NAMED.match(self._text, naming.end)
        value = self._read(match.end()) if match is not None else None
        if value is None or _NO_SECRET.fullmatch(self._text[value.start : value.end]):
            return None
        return value

    def _read(self, at: int) -> _Value | None:
        """Return the value that begins at an index; None at the end of a line."""
        text = self._text
        opening = _OPENING.match(text, at)
        if opening is not None:
            start = opening.end()
            closing = _closing(opening["quote"]).match(text, start)
            end = closing.end() if closing is not None else start
            if end - start == 0 and opening["quote"] == '"' and text.startswith('""', start):  # three quotes
                return _Value(start + 2, max(text.find('"""', start + 2), start + 2), is_literal=True)
            return _Value(start, end, is_literal=True)
        if text[at : at + 1] in ("{", "[", "("):
            if placeholder := _PLACEHOLDER.match(text, at):
                return _Value(at, placeholder.end(), is_literal=False)
            return _Value(at, self._closing_of(at), is_literal=True)
        call = _CALL.match(text, at)
        if call is not None:
            return _Value(at, call.end(), is_literal=True) if re.search(r"[\"']", call[0]) else None
        bare = _BARE.match(text, at)
        return _Value(at, bare.end(), is_literal=False) if bare is not None else None

    def _block(self, match: re.Match[str]) -> _Value | None:
        """Return the lines of YAML below a name."""
        text = self._text
        lead = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        indentation = len(lead) - len(lead.lstrip(" -"))
        start = end = self._end_of_line(match.end())
        while (line := _NEXT_LINE.match(text, end)) is not None:
            if line["text"] and len(line["indentation"]) <= indentation:
                break
            end = line.end()
        first = _NEXT_LINE.match(text, start)
        if first is None or end == start:
            return None
        return _Value(first.start("text"), end, is_literal=True)

    def _closing_of(self, at: int) -> int:
        """Return the index of the closing bracket, or of the end of the line."""
        if self._closings is None:
            self._closings = {}
            opened: list[int] = []
            for bracket in _BRACKETS.finditer(self._text):
                if bracket[0] in "{[(":
                    opened.append(bracket.start())
                elif opened:
                    self._closings[opened.pop()] = bracket.end()
        return self._closings.get(at) or self._end_of_line(at)

    def _end_of_line(self, at: int) -> int:
        line = _LINE.match(self._text, at)
        return at if line is None else line.end()

    def _begins(self, start: int) -> bool:
        """Return whether a pair can begin at a name, which follows a bracket, a comma or a line break."""
        lead = self._text[max(0, start - _MAX_LEAD) : start].rstrip(" \t\"'`\\-")
        return lead.endswith(_BEGINS) or (not lead and start < _MAX_LEAD) or lead.endswith("\\n")

    def _begins_line(self, start: int) -> bool:
        """Return whether a name is at the beginning of a line, or of a message after the name of an error."""
        lead = self._text[max(0, start - _MAX_LEAD) : start].rstrip(" \t\"'`-")
        return lead.endswith(("\n", "\r", "\\n", ":")) or (not lead and start < _MAX_LEAD)


_NEXT_LINE = re.compile(r"\r?\n(?P<indentation>[ \t]*)(?P<text>[^\r\n]*)")


@lru_cache(maxsize=64)
def _closing(quote: str) -> re.Pattern[str]:
    """Return a pattern for the content of a quote, up to the same quote or the end of its line."""
    if len(quote) == 1:
        return re.compile(rf"(?:[^{quote}\\\r\n]|\\.)*")
    # Within an escaped quote, an inner quote has more backslashes.
    return re.compile(rf"(?:(?!(?<!\\){re.escape(quote)})[^\r\n])*")
