r"""Evaluates an answer: its correctness, and whether every number in it comes from a source.

The evaluation uses rules and no other model, so the same answer always gets the same evaluation.

Example:
    >>> answer = "On average, deliveries were 12.3 minutes late.\nAnswer: 12.3"
    >>> stated(answer, "Answer:")
    '12.3'
    >>> is_number("12.3 minutes", expected="12.34", decimals=1)
    True
    >>> ungrounded(answer, sources=["minutes\n12.3456"])
    []
    >>> ungrounded("It was 17 minutes.", sources=["minutes\n12.3456"])
    ['17']
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

# Models write a hyphen, a minus sign or an en dash.
SIGNS = "-\N{MINUS SIGN}\N{EN DASH}"
# In some languages, spaces that do not break a line separate thousands.
SPACES = "\N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}"

# These are digits that are not part of a word or of a code (N14228, B-6). Digits that are joined by commas
# may be one number or several.
_NUMERAL = re.compile(
    rf"(?<![\w.])(?<![^\W\d_]-)[{SIGNS}+]?(?>\.?\d+(?:[.,]\d+|[{SPACES}]\d{{3}}(?!\d))*)(?!\w)"
)
_GROUPED = re.compile(rf"\d{{1,3}}(?:[,{SPACES}]\d{{3}})+(?:\.\d+)?")
_PLAIN = re.compile(r"\d*\.?\d+")
_LIST_MARKER = re.compile(r"(?m)^\s*\d{1,2}[.)]\s")
_PERCENT = re.compile(r"\s*\\?(?:%|percent|per cent)")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = r"(Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|"
_MONTH += r"Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?\b"
_YEAR = r"(?:,?\s+(\d{4})\b)?"
_ISO_DATE = re.compile(r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?!\d)")
_MONTH_FIRST = re.compile(rf"\b{_MONTH}\s+{_DAY}{_YEAR}")
_DAY_FIRST = re.compile(rf"(?<![\w.,]){_DAY}\s+(?:of\s+)?{_MONTH}{_YEAR}")


# The year, which may be None, the month and the day.
_Date = tuple[int | None, int, int]


@dataclass
class _Known:
    """The numbers of the sources, without their signs, and their dates."""

    numbers: set[Decimal] = field(default_factory=set)
    dates: set[_Date] = field(default_factory=set)

    def add(self, source: str) -> None:
        dates, rest = _dates_and_rest(source)
        for _, (year, month, day) in dates:
            self.dates |= {(year, month, day), (None, month, day)}
            if year is not None:
                self.numbers.add(Decimal(year))
        for text in (rest, *_cells(rest)):
            self.numbers.update(map(abs, _numbers(text)))

    def has(self, number: Decimal, step: Decimal) -> bool:
        return any(_rounded(known, step) == number for known in self.numbers)

    def has_share(self, percentage: Decimal, step: Decimal) -> bool:
        return any(known <= 1 and _rounded(known * 100, step) == percentage for known in self.numbers)

    def has_date(self, date: _Date) -> bool:
        # "In January 15 loaves ..." looks like a date as well.
        return date in self.dates or (date[0] is None and Decimal(date[2]) in self.numbers)


def stated(answer: str, marker: str) -> str | None:
    """Return the text after the marker in the last line that begins with it.

    Args:
        answer: Whole answer.
        marker: Beginning of the line, such as "Answer:".

    Returns:
        The rest of the line, without quotes and a full stop; None if there is no such line.
    """
    statement = None
    for line in answer.splitlines():
        bare = re.sub(r"[*`]", "", line).lstrip("_#>-\N{BULLET} \t").rstrip()
        if bare.casefold().startswith(marker.casefold()):
            statement = bare[len(marker) :].strip("_\"' ").rstrip(".").strip("_\"' ")
    return statement


def is_number(statement: str | None, expected: str, decimals: int) -> bool:
    """Return True if a statement contains the expected number, and no other number.

    Args:
        statement: Statement to check; words around the number ("12 minutes") are ignored.
        expected: Correct number.
        decimals: Number of decimals to which both numbers are rounded before they are compared.
    """
    numbers = list(_numbers(_dates_and_rest(statement or "")[1]))
    if len(numbers) != 1:
        return False
    step = Decimal(1).scaleb(-decimals)
    return _rounded(numbers[0], step) == _rounded(Decimal(expected), step)


def is_text(statement: str | None, expected: str) -> bool:
    """Return True if a statement is the expected text; case, accents and punctuation are ignored."""
    return statement is not None and _plain(statement) == _plain(expected)


def ungrounded(answer: str, sources: Iterable[str]) -> list[str]:
    """Return the numbers of an answer that appear in none of its sources.

    A rounded number counts as present if a number of a source rounds to it, a percentage if a source contains
    the fraction, and a date in words if a source contains it in digits. Signs are ignored, because a source
    may contain -5 for "5 minutes early".

    Args:
        answer: Whole answer.
        sources: Question and results of tools.
    """
    known = _Known()
    for source in sources:
        known.add(source)
    text = _LIST_MARKER.sub(" ", re.sub(r"[*`]", " ", answer))
    dates, text = _dates_and_rest(text)
    missing = [written for written, date in dates if not known.has_date(date)]
    missing += [match.group() for match in _NUMERAL.finditer(text) if not _appears(match, text, known)]
    return missing


def _appears(match: re.Match[str], text: str, known: _Known) -> bool:
    is_percentage = _PERCENT.match(text, match.end()) is not None
    for number in map(abs, _values(match.group())):
        exponent = number.as_tuple().exponent
        step = Decimal(1).scaleb(exponent if isinstance(exponent, int) else 0)
        if not known.has(number, step) and not (is_percentage and known.has_share(number, step)):
            return False
    return True


def _dates_and_rest(text: str) -> tuple[list[tuple[str, _Date]], str]:
    """Return the dates of a text, as they are written and as numbers, and the text without them."""
    dates: list[tuple[str, _Date]] = []
    for form, year, month, day in ((_ISO_DATE, 1, 2, 3), (_MONTH_FIRST, 3, 1, 2), (_DAY_FIRST, 3, 2, 1)):
        for match in form.finditer(text):
            name = match[month]
            number = int(name) if name.isdigit() else _MONTHS.index(name[:3]) + 1
            dates.append((match[0], (int(match[year]) if match[year] else None, number, int(match[day]))))
        text = form.sub(" ", text)
    return dates, text


def _cells(source: str) -> Iterator[str]:
    """Yield the cells of a table in CSV, in which commas separate numbers and are never part of one."""
    with suppress(csv.Error):
        rows = csv.reader(io.StringIO(source, newline=""))
        width = len(next(rows, ()))
        for row in rows:
            if len(row) == width > 1:
                yield from row


def _numbers(text: str) -> Iterator[Decimal]:
    return (number for numeral in _NUMERAL.findall(text) for number in _values(numeral))


def _values(numeral: str) -> list[Decimal]:
    """Return the numbers in joined digits: 1,024 is one number, 12,5 are two, and 3.14.15 is not a number."""
    digits = numeral.lstrip(f"+{SIGNS}")
    if _GROUPED.fullmatch(digits):
        values = [Decimal(re.sub(rf"[,{SPACES}]", "", digits))]
    else:
        values = [Decimal(part) for part in re.split(rf"[,{SPACES}]", digits) if _PLAIN.fullmatch(part)]
    if values and numeral[0] in SIGNS:
        values[0] = -values[0]
    return values


def _rounded(number: Decimal, step: Decimal) -> Decimal:
    try:
        return number.quantize(step, ROUND_HALF_UP)
    except InvalidOperation:  # more digits than a Decimal keeps
        return number


def _plain(text: str) -> Sequence[str]:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(
        r"[^\W_]+", "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    )
