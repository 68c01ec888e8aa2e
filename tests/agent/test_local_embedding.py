"""Tests which texts are similar for the local embedder, and that it can be saved."""

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest

from ledgerline.agent.local_embedding import DIMENSIONS, TOPICS, LocalEmbedder, UnreadableEmbedderError
from tests.project import PROJECT_ROOT

TEXTS = [
    "Which carrier had the most delayed arrivals in March 2013? ExpressJet, with 2,104 late flights.",
    "How many flights were cancelled on 2013-02-08? 472 of 930; a snowstorm.",
    "Which model version is in production? flight_delay version 3.",
    "Why did version 4 fail the promotion gate? Its AUC was 0.02 below the champion's.",
    "What is the average departure delay from JFK? 12.1 minutes.",
    "What is the mean departure delay from LaGuardia? 10.3 minutes.",
    "How long did the last training run take? 41 seconds, of which features took 20.",
    "Which weather feature matters most for delays? Visibility, then wind gusts.",
    "Run 7fe2: features materialised for 28 partitions, 24,951 rows, no schema change.",
    "Run 99ab: training of delay_model, AUC 0.71, Brier score 0.14.",
]
ASKED = {
    "most late airline in march": 0,
    "carriers with delays in March": 0,
    "cancellations of flights in a snowstorm": 1,
    "what's the production model?": 2,
    "why was version 4 not promoted": 3,
    "delays at JFK": 4,
    "LaGuardia departures delayed on average": 5,
    "is weather important for delays?": 7,
    "how many rows have the features": 8,
    "AUC of the delay model": 9,
}
UNRELATED = ["What is the capital of France?", "hello", "How do I bake a cake?", "", "?!", "what did they do"]


@pytest.fixture(scope="module")
def embedder() -> LocalEmbedder:
    return LocalEmbedder.fitted(TEXTS)


def vectors(embedder: LocalEmbedder, texts: Sequence[str]) -> Any:
    return np.asarray(embedder.embed(texts))


def likeness(embedder: LocalEmbedder, question: str) -> Any:
    return vectors(embedder, TEXTS) @ vectors(embedder, [question])[0]


@pytest.mark.parametrize("question", ASKED)
def test_a_question_in_similar_words_finds_its_text(embedder: LocalEmbedder, question: str) -> None:
    assert int(likeness(embedder, question).argmax()) == ASKED[question]


@pytest.mark.parametrize("question", UNRELATED)
def test_texts_without_common_words_have_no_similarity(embedder: LocalEmbedder, question: str) -> None:
    assert likeness(embedder, question).max() < 0.1


def test_words_that_occur_together_are_alike() -> None:
    chance = random.Random(0)  # noqa: S311 (the same at each run)
    subjects = [["".join(chance.choices(ascii_lowercase, k=4)) for _ in range(12)] for _ in range(60)]
    texts = [" ".join(chance.sample(chance.choice(subjects), 5)) for _ in range(1_500)]
    found = vectors(LocalEmbedder.fitted(texts), [subjects[0][0], subjects[0][1], subjects[1][0]])
    assert found[0] @ found[1] > 0.15
    assert abs(found[0] @ found[2]) < 0.05


def test_every_vector_is_finite_and_of_length_1(embedder: LocalEmbedder) -> None:
    found = vectors(embedder, [*TEXTS, *UNRELATED, "\ud800", "飛行機 は 遅れ た", "x" * 100_000])
    assert found.shape == (len(TEXTS) + len(UNRELATED) + 3, DIMENSIONS)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("texts", [[], [""], ["one"], ["same words"] * 300, ["!", "?"]])
def test_a_few_texts_are_enough_to_fit(texts: list[str]) -> None:
    found = vectors(LocalEmbedder.fitted(texts), ["one", "same words", "other things", ""])
    assert np.isfinite(found).all()
    assert found @ found.T == pytest.approx(np.eye(4), abs=0.35)


def test_no_texts_have_no_vectors(embedder: LocalEmbedder) -> None:
    assert len(embedder.embed([])) == 0


def test_more_texts_than_topics_can_be_fitted() -> None:
    texts = [
        f"flight {number} to gate {number % 17} was late by {number % 31} minutes" for number in range(900)
    ]
    embedder = LocalEmbedder.fitted(texts)
    assert embedder.texts == len(texts) > TOPICS
    found = vectors(embedder, texts)
    assert int((found @ vectors(embedder, ["how late was flight 321?"])[0]).argmax()) == 321


def test_the_order_of_texts_makes_no_difference(embedder: LocalEmbedder) -> None:
    turned = LocalEmbedder.fitted(TEXTS[::-1])
    assert turned.name == embedder.name
    assert np.array_equal(vectors(turned, list(ASKED)), vectors(embedder, list(ASKED)))


def test_an_embedder_fitted_to_other_texts_has_another_name(embedder: LocalEmbedder) -> None:
    assert embedder.name.startswith("local:")
    assert len(embedder.name) == len("local:") + 8
    assert LocalEmbedder.fitted(TEXTS[1:]).name != embedder.name


def test_a_fitted_embedder_is_equal_after_it_is_read_again(embedder: LocalEmbedder, tmp_path: Path) -> None:
    embedder.save(tmp_path / "learned.npz")
    again = LocalEmbedder.load(tmp_path / "learned.npz")
    assert (again.name, again.texts) == (embedder.name, embedder.texts)
    asked = [*ASKED, *UNRELATED]
    assert np.array_equal(vectors(again, asked), vectors(embedder, asked))


def test_the_stored_embedder_contains_no_words(embedder: LocalEmbedder, tmp_path: Path) -> None:
    embedder.save(tmp_path / "learned.npz")
    kept = (tmp_path / "learned.npz").read_bytes().lower()
    assert not [word for word in ("expressjet", "snowstorm", "laguardia") if word.encode() in kept]


def test_a_damaged_file_is_reported_as_unreadable(embedder: LocalEmbedder, tmp_path: Path) -> None:
    file = tmp_path / "learned.npz"
    embedder.save(file)
    content = file.read_bytes()
    for damaged in (b"", b"no archive", content[: len(content) // 2], content[:2000] + content[2100:]):
        file.write_bytes(damaged)
        with pytest.raises(UnreadableEmbedderError, match=r"learned\.npz"):
            LocalEmbedder.load(file)
    with pytest.raises(UnreadableEmbedderError):
        LocalEmbedder.load(tmp_path / "absent.npz")


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    heavy = ("numpy", "sklearn", "lancedb", "pyarrow")
    program = (
        f"import sys, ledgerline.agent.memory; sys.exit(str([m for m in {heavy} if m in sys.modules] or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
