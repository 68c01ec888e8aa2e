"""Selects the entries of memory that are recalled: relevant, recent and different from each other.

The functions are pure. The entries are searched in vector_store.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """An entry that may be recalled.

    Attributes:
        relevance: Similarity to the question, from 0 to 1.
        age_days: Age in days.
        vector: Vector of the entry; its length is ignored.
    """

    relevance: float
    age_days: float
    vector: Sequence[float]


@dataclass(frozen=True)
class Preferences:
    """The weights of the selection.

    Attributes:
        floor: Minimum relevance. Its best value depends on the embedder: the relevance of unrelated texts is
            0 with the local embedder, and 0.4 or more with some language models.
        half_life_days: Days after which the recency of an entry is halved.
        recency: Maximum share of the score that an entry loses for its age, from 0 to 1.
        diversity: Weight of the similarity to entries that are already selected, from 0 to 1.
    """

    floor: float = 0.2
    half_life_days: float = 90
    recency: float = 0.2
    diversity: float = 0.3


@dataclass(frozen=True)
class Selection:
    """A candidate that is recalled.

    Attributes:
        position: Index of the candidate.
        score: Marginal relevance, given the candidates selected before; it decreases from one selection to
            the next.
    """

    position: int
    score: float


def relevance(distance: float) -> float:
    """Return a relevance from 0 to 1 for a cosine distance; opposite vectors count as orthogonal ones."""
    return min(1.0, max(0.0, 1.0 - distance))


def recency(age_days: float, half_life_days: float) -> float:
    """Return 1 for a new entry, halved after each half-life; an entry from the future counts as new."""
    return 0.5 ** (max(0.0, age_days) / half_life_days)


def select(candidates: Sequence[Candidate], limit: int, preferences: Preferences) -> Sequence[Selection]:
    """Select the candidates that together contain the most information, the best first.

    The selection follows maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): each step takes
    the candidate with the highest relevance, minus its similarity to the most similar candidate before it. Of
    equal candidates, the earlier one is taken.
    """
    left = [
        position for position, candidate in enumerate(candidates) if candidate.relevance >= preferences.floor
    ]
    if not left or limit < 1:
        return []
    similarities = _similarities([candidate.vector for candidate in candidates])
    ages = [recency(candidate.age_days, preferences.half_life_days) for candidate in candidates]
    worth = [
        candidate.relevance * (1 - preferences.recency * (1 - age))
        for candidate, age in zip(candidates, ages, strict=True)
    ]
    selected: list[Selection] = []

    def gain(position: int) -> float:
        likeness = max((similarities[position][other.position] for other in selected), default=0.0)
        return (1 - preferences.diversity) * worth[position] - preferences.diversity * likeness

    while left and len(selected) < limit:
        best = max(left, key=gain)
        selected.append(Selection(best, gain(best)))
        left.remove(best)
    return selected


def _similarities(vectors: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """Return the cosines of all pairs; negative ones become 0."""
    import numpy as np

    matrix = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    directions = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
    return np.maximum(directions @ directions.T, 0.0).tolist()
