"""Tests the selection of candidates: relevant, recent and different from each other."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerline.agent.ranking import Candidate, Preferences, recency, relevance, select

EAST, NORTH, ZERO = (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)

shares = st.floats(0, 1)
numbers = st.floats(-1, 1)
candidates = st.lists(
    st.builds(Candidate, shares, st.floats(-10, 10_000), st.tuples(numbers, numbers, numbers)), max_size=12
)
preferences = st.builds(Preferences, shares, st.floats(0.1, 1_000), shares, shares)


def order(found: Sequence[Candidate], limit: int = 4, **what: float) -> list[int]:
    return [choice.position for choice in select(found, limit, Preferences(**what))]


def test_relevance_falls_with_the_distance_and_stays_between_0_and_1() -> None:
    assert [relevance(distance) for distance in (-1e-7, 0, 0.25, 1, 2)] == [1, 1, 0.75, 0, 0]


def test_recency_halves_after_each_half_life() -> None:
    assert [recency(days, 90) for days in (-5, 0, 90, 180)] == [1, 1, 0.5, 0.25]


def test_the_most_relevant_is_first() -> None:
    found = [Candidate(value, 0, EAST) for value in (0.4, 0.9, 0.6)]
    assert order(found) == [1, 2, 0]


def test_the_newer_of_two_equally_relevant_is_first() -> None:
    assert order([Candidate(0.8, 400, EAST), Candidate(0.8, 1, EAST)]) == [1, 0]


def test_a_much_more_relevant_one_comes_before_a_newer_one() -> None:
    assert order([Candidate(0.5, 0, EAST), Candidate(0.8, 10_000, EAST)]) == [1, 0]


def test_another_subject_is_ranked_before_a_repetition() -> None:
    found = [Candidate(0.9, 0, EAST), Candidate(0.89, 0, EAST), Candidate(0.6, 0, NORTH)]
    assert order(found, limit=2) == [0, 2]
    assert order(found, limit=2, diversity=0) == [0, 1]


def test_the_earlier_of_two_equal_ones_is_chosen() -> None:
    assert order([Candidate(0.9, 0, EAST), Candidate(0.9, 0, EAST)], limit=1) == [0]


def test_entries_below_the_floor_are_not_recalled() -> None:
    assert order([Candidate(0.29, 0, EAST), Candidate(0.3, 0, NORTH)], floor=0.3) == [1]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_zero_recalls_nothing(limit: int) -> None:
    assert order([Candidate(0.9, 0, EAST)], limit) == []


def test_a_vector_of_zeros_has_no_similarity() -> None:
    assert order([Candidate(0.9, 0, ZERO), Candidate(0.8, 0, ZERO)]) == [0, 1]


@given(candidates, st.integers(-1, 15), preferences)
def test_as_many_as_possible_are_chosen_each_once_and_none_below_the_floor(
    found: list[Candidate], limit: int, wanted: Preferences
) -> None:
    positions = [choice.position for choice in select(found, limit, wanted)]
    good = [position for position, one in enumerate(found) if one.relevance >= wanted.floor]
    assert len(set(positions)) == len(positions) == max(0, min(limit, len(good)))
    assert set(positions) <= set(good)


@given(candidates, preferences)
def test_scores_are_finite_and_fall(found: list[Candidate], wanted: Preferences) -> None:
    scores = [choice.score for choice in select(found, len(found), wanted)]
    assert all(map(math.isfinite, scores))
    assert scores == sorted(scores, reverse=True)


@given(candidates, st.integers(0, 12), preferences)
def test_fewer_are_the_first_of_more(found: list[Candidate], limit: int, wanted: Preferences) -> None:
    assert select(found, limit, wanted) == select(found, 12, wanted)[:limit]


@given(candidates, preferences)
def test_the_first_is_the_best_alone(found: list[Candidate], wanted: Preferences) -> None:
    choices = select(found, 1, wanted)
    alone = [select([one], 1, wanted)[0].score for one in found if one.relevance >= wanted.floor]
    assert [choice.score for choice in choices] == ([max(alone)] if alone else [])
