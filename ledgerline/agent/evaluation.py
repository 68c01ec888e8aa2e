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


@dataclass
class _Known:
    """The numbers and dates of the sources.

    Attributes:
        numbers: Numbers without their signs.
        dates: Year, month and day of each date; the year may be None.
    """

    numbers: set[Decimal] = field(default_factory=set)
    dates: set[tuple[int | None, int, int]] = field(default_factory=set)

    def add(self, source: str) -> None:
        dates, rest = _dates_and_rest(source)
        for date in dates:
            self.dates.update((date.key, (None, *date.key[1:])))
            self.numbers.update(Decimal(year) for year in date.key[:1] if year is not None)
        for text in (rest, *_cells(rest)):
            self.numbers.update(abs(number) for number in _numbers(text))

    def has(self, number: Decimal, step: Decimal) -> bool:
        return any(_rounded(known, step) == number for known in self.numbers)

    def has_share(self, percentage: Decimal, step: Decimal) -> bool:
        return any(known <= 1 and _rounded(known * 100, step) == percentage for known in self.numbers)

    def has_date(self, date: "_Date") -> bool:
        # "In January 15 loaves ..." looks like a date as well.
        return date.key in self.dates or (date.key[0] is None and Decimal(date.key[2]) in self.numbers)


@dataclass(frozen=True)
class _Date:
    text: str
    key: tuple[int | None, int, int]


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
    missing = [date.text for date in dates if not known.has_date(date)]
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


def _dates_and_rest(text: str) -> tuple[list[_Date], str]:
    """Return the dates of a text, and the text without them."""
    dates: list[_Date] = []
    for form, year, month, day in ((_ISO_DATE, 1, 2, 3), (_MONTH_FIRST, 3, 1, 2), (_DAY_FIRST, 3, 2, 1)):
        dates += [
            _Date(match[0], _key(match[year], match[month], match[day])) for match in form.finditer(text)
        ]
        text = form.sub(" ", text)
    return dates, text


def _key(year: str | None, month: str, day: str) -> tuple[int | None, int, int]:
    number = int(month) if month.isdigit() else _MONTHS.index(month[:3]) + 1
    return int(year) if year else None, number, int(day)


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
