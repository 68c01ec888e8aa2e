"""Tests the evaluation of answers: what they state, whether it is right, and which numbers are grounded."""

import csv
import io
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerline.agent.evaluation import is_number, is_text, stated, ungrounded

STATED, UNKNOWN = "Answer:", "unknown"

# The stated fact


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("There are 42.\nAnswer: 42", "42"),
        ("Answer: 42\nAnswer: 43", "43"),
        ("Answer: 42\n\n", "42"),
        ("ANSWER: 42", "42"),
        ("answer:42", "42"),
        ("  Answer:   42  ", "42"),
        ("**Answer:** 42", "42"),
        ("**Answer: 42**", "42"),
        ("**Answer**: 42", "42"),
        ("*Answer:* `N14228`", "N14228"),
        ("__Answer:__ 42", "42"),
        ("### Answer: 42", "42"),
        ("> Answer: 42", "42"),
        ("- Answer: 42", "42"),
        ("Answer: -5", "-5"),
        ("Answer: 42.", "42"),
        ("Answer: 12.5", "12.5"),
        ('Answer: "JFK".', "JFK"),
        ("Answer: 'B6'", "B6"),
        ("Answer: 1,024 flights", "1,024 flights"),
        ("Answer: Alaska Airlines Inc.", "Alaska Airlines Inc"),
        ("Answer: unknown", "unknown"),
        ("Answer:", ""),
        ("The answer: 42", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_last_line_with_the_marker_states_the_answer(answer: str, expected: str | None) -> None:
    assert stated(answer, STATED) == expected


@given(st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=2))
def test_any_stated_number_is_read(number: int | Decimal) -> None:
    assert stated(f"So it is.\n**Answer:** {number:,}.", STATED) == f"{number:,}"


# Numbers


@pytest.mark.parametrize(
    ("answer_text", "expected", "decimals", "is_right"),
    [
        ("42", "42", 0, True),
        ("42.0", "42", 0, True),
        ("43", "42", 0, False),
        ("1,024", "1024", 0, True),
        ("1024", "1024", 0, True),
        ("1,234,567.8", "1234567.8", 1, True),
        ("1\N{NARROW NO-BREAK SPACE}024", "1024", 0, True),
        ("12 minutes", "12", 0, True),
        ("about 12 minutes", "12", 0, True),
        ("12-minute delay", "12", 0, True),
        ("$42", "42", 0, True),
        ("**42**", "42", 0, True),
        ("12.3%", "12.3", 1, True),
        ("12.34", "12.3", 1, True),
        ("12.25", "12.3", 1, True),
        ("12", "12.3", 1, False),
        ("12.4", "12.3", 1, False),
        (".5", "0.5", 1, True),
        ("0.5", "0.5", 1, True),
        ("-12", "-12", 0, True),
        ("\N{MINUS SIGN}12", "-12", 0, True),
        ("\N{EN DASH}12.5", "-12.5", 1, True),
        ("+12", "12", 0, True),
        ("-12", "12", 0, False),
        ("12", "-12", 0, False),
        ("-0", "0", 0, True),
        ("12 or 13", "12", 0, False),
        ("12 of 365", "12", 0, False),
        ("12-13", "12", 0, False),
        ("12,5", "12.5", 1, False),
        ("3.14.15", "3.14", 2, False),
        ("42 (on 2013-01-31)", "42", 0, True),
        ("2013-01-31", "2013", 0, False),
        ("N14228", "14228", 0, False),
        ("B6", "6", 0, False),
        ("B-6", "6", 0, False),
        ("B6 with 54", "54", 0, True),
        ("42nd", "42", 0, False),
        ("unknown", "42", 0, False),
        ("forty-two", "42", 0, False),
        ("", "0", 0, False),
        (None, "0", 0, False),
        ("9" * 60, "9" * 60, 0, True),
        ("9" * 60, "8" * 60, 1, False),
        ("42", "nan", 0, False),
    ],
)
def test_a_number_is_right_to_its_decimals(
    answer_text: str | None, expected: str, decimals: int, is_right: bool
) -> None:
    assert is_number(answer_text, expected, decimals) is is_right


NUMBERS = st.decimals(min_value=-(10**12), max_value=10**12, places=3, allow_nan=False)


@given(
    NUMBERS, st.sampled_from(["{}", "{:,}", "{} minutes", "It is {:,}.", "**{}**", "({})", '"{:,}"', "{}%"])
)
def test_a_number_is_right_however_it_is_written(number: Decimal, form: str) -> None:
    assert is_number(form.format(number), str(number), 3)
    assert is_number(form.format(number).replace("-", "\N{MINUS SIGN}"), str(number), 1)


@given(NUMBERS, NUMBERS, st.integers(0, 3))
def test_two_numbers_are_the_same_only_if_they_round_to_the_same(
    one: Decimal, other: Decimal, decimals: int
) -> None:
    is_same = f"{abs(one - other)}" == "0.000"
    is_far = abs(one - other) > Decimal(1).scaleb(-decimals)
    is_equal = is_number(str(one), str(other), decimals)
    assert is_equal or not is_same
    assert not (is_equal and is_far)
    assert not is_number(f"{one} and {other}", str(one), decimals)


# Texts


@pytest.mark.parametrize(
    ("answer_text", "expected", "is_right"),
    [
        ("JFK", "JFK", True),
        ("jfk", "JFK", True),
        ("JFK.", "JFK", True),
        ("JFK airport", "JFK", False),
        ("EWR", "JFK", False),
        ("San Juan Luis Muñoz Marín", "San Juan Luis Munoz Marin", True),
        ("San Juan Luis Mun\u0303oz Mari\u0301n", "San Juan Luis Muñoz Marín", True),
        ("Straße", "STRASSE", True),
        ("Chicago O\N{RIGHT SINGLE QUOTATION MARK}Hare", "Chicago O'Hare", True),
        ("ExpressJet Airlines, Inc", "ExpressJet Airlines Inc.", True),
        ("Raleigh/Durham", "Raleigh Durham", True),
        ("2013-01-31", "2013-01-31", True),
        ("31 January 2013", "2013-01-31", False),
        ("unknown", UNKNOWN, True),
        ("Unknown.", UNKNOWN, True),
        ("unknown to me", UNKNOWN, False),
        ("", "JFK", False),
        (None, "JFK", False),
    ],
)
def test_case_accents_and_punctuation_of_a_text_do_not_matter(
    answer_text: str | None, expected: str, is_right: bool
) -> None:
    assert is_text(answer_text, expected) is is_right


@given(st.text(), st.text())
def test_a_text_is_right_for_itself_and_both_ways(one: str, other: str) -> None:
    assert is_text(one, one)
    assert is_text(one, other) is is_text(other, one)


# Ungrounded numbers

TABLE = (
    "carrier,flights,share,delay,on\nUA,58665,0.1742,-3.4567,2013-02-08\nB6,54635,0.1622,9.46,2013-02-09\n"
)


@pytest.mark.parametrize(
    ("answer", "sources", "missing"),
    [
        ("There are 42.", ["n\n42\n"], []),
        ("There are 43.", ["n\n42\n"], ["43"]),
        ("There are 42.", [], ["42"]),
        ("No numbers.", [], []),
        ("", ["42"], []),
        # Cells of a table
        ("UA had 58,665 and B6 54635 flights.", [TABLE], []),
        ("UA had 58,666 flights.", [TABLE], ["58,666"]),
        ("100 and 200, not 300", ["a,b\n100,200\n"], ["300"]),
        ("100,200", ["a,b\n100,200\n"], []),
        ("1,024 and 7", ['n,m\n"1,024",7\n'], []),
        ("1 and 24", ['n,m\n"1,024",7\n'], ["1", "24"]),
        # Rounded, and without a sign
        ("3.5 minutes early, or 3, or 3.457", [TABLE], []),
        ("3.4 minutes early", [TABLE], ["3.4"]),
        ("-3.46 minutes", [TABLE], []),
        ("about 9 minutes, or 9.5, or 9.460", [TABLE], []),
        ("58,700 or so", [TABLE], ["58,700"]),
        # Percentages
        ("17.4% of them", [TABLE], []),
        ("17 percent of them", [TABLE], []),
        ("**16.2** % of them", [TABLE], []),
        ("17.5% of them", [TABLE], ["17.5"]),
        ("17.4 of them", [TABLE], ["17.4"]),
        ("946% of them", [TABLE], ["946"]),
        ("12.3%", ["share\n12.34\n"], []),
        ("100% of them", ["share\n1.0\n"], []),
        # Dates and years
        ("On 2013-02-08.", [TABLE], []),
        ("On 2013-02-10.", [TABLE], ["2013-02-10"]),
        ("On February 8, 2013.", [TABLE], []),
        ("On Feb. 8th", [TABLE], []),
        ("On 9 February 2013.", [TABLE], []),
        ("On the 9th of February", [TABLE], []),
        ("On February 10, 2013.", [TABLE], ["February 10, 2013"]),
        ("On February 8, 2014.", [TABLE], ["February 8, 2014"]),
        ("In January 15 flights were late.", ["n\n15\n"], []),
        ("In 2013.", [TABLE], []),
        ("In 2014.", [TABLE], ["2014"]),
        ("Nothing is known of 2019.", ["How many flights left JFK in 2019?"], []),
        ("8 flights", ["2013-02-08"], ["8"]),
        ("At 05:15", ["at\n2013-02-08 05:15:00\n"], []),
        # The expected fact
        ("More than 60 minutes late: 12.", ["How many were over 60 minutes late?", "n\n12\n"], []),
        # Codes are not numbers
        ("N14228 of B6 is an A320, flown by 9E as B-6.", [], []),
        ("It is an A320-200.", ["model\nA320-200\n"], []),
        ("The Boeing 737-824", [], ["737", "824"]),
        ("14228", ["tailnum\nN14228\n"], ["14228"]),
        ("6", ["carrier\nB6\n"], ["6"]),
        # Marks of lists
        ("1. UA\n2. B6\n3) AA", [], []),
        ("**1.** UA", [], []),
        ("- 1 flight", [], ["1"]),
        # Punctuation
        ("(42), 42; 42! 42: [42] 42\N{EN DASH}42 42/42 $42", ["42"], []),
        ("42.", ["42"], []),
        ("12,5", ["12 and 5"], []),
        ("12,5", ["12"], ["12,5"]),
        ("12,5", ["n\n12.5\n"], ["12,5"]),
        ("1,024.", ["1024"], []),
        ("1\N{NO-BREAK SPACE}024 flights", ["1024"], []),
    ],
)
def test_numbers_of_an_answer_are_grounded_in_its_sources(
    answer: str, sources: list[str], missing: list[str]
) -> None:
    assert ungrounded(answer, sources) == missing


CELLS = st.lists(
    st.lists(st.decimals(-(10**9), 10**9, places=2) | st.integers(-(10**9), 10**9), min_size=3, max_size=3),
    min_size=1,
    max_size=5,
)


@given(CELLS)
def test_every_cell_of_a_tools_answer_is_grounded(rows: list[list[Decimal | int]]) -> None:
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows([["a", "b", "c"], *rows])
    for number in (number for row in rows for number in row):
        rounded = Decimal(number).quantize(Decimal(1), ROUND_HALF_UP)
        for answer_text in (f"{number}", f"{number:,}", f"{abs(number):,}", f"{rounded}", f"{rounded:,}"):
            assert ungrounded(f"It is {answer_text}.", [output.getvalue()]) == []


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**9), max_size=5))
def test_a_number_that_is_nowhere_is_ungrounded(number: int, others: list[int]) -> None:
    sources = [f"n\n{other}\n" for other in others if other != number]
    assert ungrounded(f"There are {number:,} flights.", sources) == [f"{number:,}"]


ODD = st.text(alphabet='0123456789.,-+%*\n "JB\N{MINUS SIGN}\N{THIN SPACE}') | st.text()


@given(ODD, st.lists(ODD))
def test_any_text_can_be_evaluated(answer: str, sources: list[str]) -> None:
    assert all(any(map(str.isdigit, number)) for number in ungrounded(answer, sources))
    assert ungrounded(answer, [answer.replace("*", " ")]) == []
    stated(answer, STATED)
    is_number(answer, "1", 0)
