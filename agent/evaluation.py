"""Judging an answer: is it the expected one, does it refuse, and is every number in it from a tool.

By rules alone, no other model judges; so the same answer is judged the same every time.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

MINUS = "\N{MINUS SIGN}"

# A number by itself: not part of a word, a code (N14228) or a longer number.
_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w]|[.,]\d)")
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_LIST_MARKER = re.compile(r"(?m)^\s*\d{1,2}[.)]\s")


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
        bare = line.strip().strip("*_`# ")
        if bare.casefold().startswith(marker.casefold()):
            found = bare[len(marker) :].strip().strip("*_`\"' ").rstrip(".").strip("*_`\"' ")
    return found


def is_number(said: str | None, expected: str, decimals: int) -> bool:
    """Whether something says a number, as exactly as it has to be.

    Args:
        said: What was stated; words around the number ("12 minutes") are passed over, a second number is not.
        expected: The right number.
        decimals: Decimals that count.
    """
    numbers = list(_numbers(said or ""))
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
    share.

    Args:
        answer: The whole answer.
        sources: The question, and what tools said.
    """
    dates: set[str] = set()
    known: set[Decimal] = set()
    for source in sources:
        dates.update(_DATE.findall(source))
        known.update(abs(number) for number in _numbers(source))
    text = _LIST_MARKER.sub(" ", answer)
    missing = [date for date in _DATE.findall(text) if date not in dates]
    text = _DATE.sub(" ", text)
    missing += [found.group() for found in _NUMBER.finditer(text) if not _appears(found, text, known)]
    return missing


def _appears(found: re.Match[str], text: str, known: set[Decimal]) -> bool:
    number = abs(_decimal(found.group()))
    exponent = number.as_tuple().exponent
    step = Decimal(1).scaleb(exponent if isinstance(exponent, int) else 0)
    if any(_rounded(source, step) == number for source in known):
        return True
    is_percentage = text[found.end() :].lstrip().startswith(("%", "percent", "per cent"))
    return is_percentage and any(_rounded(source * 100, step) == number for source in known)


def _numbers(text: str) -> Iterator[Decimal]:
    return (_decimal(found) for found in _NUMBER.findall(_DATE.sub(" ", text)))


def _decimal(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace(MINUS, "-"))


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
