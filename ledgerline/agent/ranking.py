"""Which of the entries that were found are worth recalling: relevant, recent, and not all the same.

Pure functions. Where the entries come from is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """An entry that was found.

    Attributes:
        relevance: How much it has to do with the question, from 0 to 1.
        age_days: How old it is, in days.
        vector: Its direction; its length makes no difference.
    """

    relevance: float
    age_days: float
    vector: Sequence[float]


@dataclass(frozen=True)
class Preferences:
    """What counts how much.

    Attributes:
        floor: What is less relevant is never recalled. What is a good one depends on the embedder: unrelated
            texts have 0 in common for a local one, and 0.4 or more for some language models.
        half_life_days: After which an entry is half as recent.
        recency: How much of the score an entry loses at most for its age, from 0 to 1.
        diversity: How much being like one that is already chosen counts against it, from 0 to 1.
    """

    floor: float = 0.2
    half_life_days: float = 90
    recency: float = 0.2
    diversity: float = 0.3


@dataclass(frozen=True)
class Chosen:
    """A candidate that is recalled.

    Attributes:
        position: Where it was among the candidates.
        score: What it adds to those chosen before it; falls from one to the next.
    """

    position: int
    score: float


def relevance(distance: float) -> float:
    """From 0 to 1, from a cosine distance; pointing away is no worse than being at right angles."""
    return min(1.0, max(0.0, 1.0 - distance))


def recency(age_days: float, half_life_days: float) -> float:
    """1 for what is new, half of it after each half-life; what seems to be from the future is new."""
    return 0.5 ** (max(0.0, age_days) / half_life_days)


def chosen(candidates: Sequence[Candidate], most: int, preferences: Preferences) -> Sequence[Chosen]:
    """The few that together tell the most, the best first.

    By maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): each is the one that is most relevant
    of those left, less what it has in common with the most similar of those before it. Where two are as good,
    the earlier candidate is taken.

    Args:
        candidates: In any order.
        most: How many at most.
        preferences: What counts how much.
    """
    left = [
        position for position, candidate in enumerate(candidates) if candidate.relevance >= preferences.floor
    ]
    if not left or most < 1:
        return []
    similarities = _similarities([candidate.vector for candidate in candidates])
    worth = [_worth(candidate, preferences) for candidate in candidates]
    found: list[Chosen] = []

    def gain(position: int) -> float:
        likeness = max((similarities[position][other.position] for other in found), default=0.0)
        return (1 - preferences.diversity) * worth[position] - preferences.diversity * likeness

    while left and len(found) < most:
        best = max(left, key=gain)
        found.append(Chosen(best, gain(best)))
        left.remove(best)
    return found


def _worth(candidate: Candidate, preferences: Preferences) -> float:
    age = recency(candidate.age_days, preferences.half_life_days)
    return candidate.relevance * (1 - preferences.recency * (1 - age))


def _similarities(vectors: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """The cosine of each with each, none below 0: pointing away is no merit."""
    import numpy as np

    matrix = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    directions = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
    return np.maximum(directions @ directions.T, 0.0).tolist()
