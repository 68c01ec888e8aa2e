"""Judging an answer: is it the expected one, does it refuse, and is every number in it from a tool.

By rules alone, no other model judges; so the same answer is judged the same every time.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

# Hyphen, minus and en dash: models write all of them.
SIGNS = "-\N{MINUS SIGN}\N{EN DASH}"
# Spaces that do not break a line stand between thousands in some languages.
SPACES = "\N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}"

# Digits by themselves: not part of a word or of a code (N14228, B-6). Those that are joined by commas may be
# one number or several.
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
    """What sources say.

    Attributes:
        numbers: Without their signs.
        dates: Year, month and day.
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
    """What the last line that begins with a marker states.

    Args:
        answer: The whole answer.
        marker: How the line begins: "Answer:".

    Returns:
        The rest of the line, without quotes and a full stop; None: there is no such line.
    """
    found = None
    for line in answer.splitlines():
        bare = re.sub(r"[*`]", "", line).lstrip("_#>-\N{BULLET} \t").rstrip()
        if bare.casefold().startswith(marker.casefold()):
            found = bare[len(marker) :].strip("_\"' ").rstrip(".").strip("_\"' ")
    return found


def is_number(said: str | None, expected: str, decimals: int) -> bool:
    """Whether something says a number, as exactly as it has to be.

    Args:
        said: What was stated; words around the number ("12 minutes") are passed over, a second number is not.
        expected: The right number.
        decimals: Decimals that count.
    """
    numbers = list(_numbers(_dates_and_rest(said or "")[1]))
    if len(numbers) != 1:
        return False
    step = Decimal(1).scaleb(-decimals)
    return _rounded(numbers[0], step) == _rounded(Decimal(expected), step)


def is_text(said: str | None, expected: str) -> bool:
    """Whether something says a text; upper and lower case, accents and punctuation make no difference."""
    return said is not None and _plain(said) == _plain(expected)


def ungrounded(answer: str, sources: Iterable[str]) -> list[str]:
    """The numbers of an answer that appear in none of its sources.

    A number that is rounded appears if a source rounds to it; so does a percentage of which a source has the
    share, and a date in words that a source has in digits. Signs make no difference: 5 minutes early is -5.

    Args:
        answer: The whole answer.
        sources: The question, and what tools said.
    """
    known = _Known()
    for source in sources:
        known.add(source)
    text = _LIST_MARKER.sub(" ", re.sub(r"[*`]", " ", answer))
    dates, text = _dates_and_rest(text)
    missing = [date.text for date in dates if not known.has_date(date)]
    missing += [found.group() for found in _NUMERAL.finditer(text) if not _appears(found, text, known)]
    return missing


def _appears(found: re.Match[str], text: str, known: _Known) -> bool:
    is_percentage = _PERCENT.match(text, found.end()) is not None
    for number in map(abs, _values(found.group())):
        exponent = number.as_tuple().exponent
        step = Decimal(1).scaleb(exponent if isinstance(exponent, int) else 0)
        if not known.has(number, step) and not (is_percentage and known.has_share(number, step)):
            return False
    return True


def _dates_and_rest(text: str) -> tuple[list[_Date], str]:
    """The dates of a text, and the text without them."""
    dates: list[_Date] = []
    for form, year, month, day in ((_ISO_DATE, 1, 2, 3), (_MONTH_FIRST, 3, 1, 2), (_DAY_FIRST, 3, 2, 1)):
        dates += [
            _Date(found[0], _key(found[year], found[month], found[day])) for found in form.finditer(text)
        ]
        text = form.sub(" ", text)
    return dates, text


def _key(year: str | None, month: str, day: str) -> tuple[int | None, int, int]:
    number = int(month) if month.isdigit() else _MONTHS.index(month[:3]) + 1
    return int(year) if year else None, number, int(day)


def _cells(source: str) -> Iterator[str]:
    """Those of a table in CSV, where a comma is between numbers and in none."""
    with suppress(csv.Error):
        rows = csv.reader(io.StringIO(source, newline=""))
        width = len(next(rows, ()))
        for row in rows:
            if len(row) == width > 1:
                yield from row


def _numbers(text: str) -> Iterator[Decimal]:
    return (number for found in _NUMERAL.findall(text) for number in _values(found))


def _values(numeral: str) -> list[Decimal]:
    """The numbers that joined digits are: 1,024 is one, 12,5 are two, and 3.14.15 is none."""
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
