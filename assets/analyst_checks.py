"""Checks that the analyst's answers are not worse than before. The scores are in analyst_scores.py."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.analyst_scores import GROUNDED, QUESTIONS_VERSION, RIGHT, TOKENS
from ledgerline.dagster.failures import PermanentFailure

SCORES = dg.AssetKey("analyst_scores")

AS_RIGHT = "as_right_as_before"
AS_GROUNDED = "as_grounded_as_before"
AS_CHEAP = "as_cheap_as_before"

DESCRIPTIONS = {
    AS_RIGHT: "At most one more answer is wrong than in the previous evaluation.",
    AS_GROUNDED: "The share of grounded answers is at most 5 points lower than in the previous evaluation.",
    AS_CHEAP: "The evaluation uses at most 1.5 times the tokens of the previous one.",
}

# The answers of a language model vary, even with the same seed on another machine, so one wrong answer of
# thirty is within chance.
MAX_LOST = 1
MAX_GROUNDEDNESS_LOSS = 0.05
MAX_TOKENS = 1.5  # times those of the previous evaluation


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name, asset=SCORES, description=text) for name, text in DESCRIPTIONS.items()],
    can_subset=True,
)
def analyst_scores_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Compare the scores with those of the previous evaluation, if its questions were the same."""
    now, before = _latest_two(context.instance)
    for result in _compared(now, before):
        if result.check_name in {key.name for key in context.selected_asset_check_keys}:
            yield result


def _latest_two(instance: dg.DagsterInstance) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    records = instance.fetch_materializations(SCORES, limit=2).records
    scores = [
        {name: value.value for name, value in record.asset_materialization.metadata.items()}
        for record in records
        if record.asset_materialization is not None
    ]
    if not scores or QUESTIONS_VERSION not in scores[0]:
        raise PermanentFailure("The asset analyst_scores has no scores.", "Materialise it first.")
    return scores[0], scores[1] if len(scores) > 1 else None


def _compared(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> Iterator[dg.AssetCheckResult]:
    if before is None or now[QUESTIONS_VERSION] != before.get(QUESTIONS_VERSION):
        why = "there are no previous scores" if before is None else "the previous questions were different"
        for name in DESCRIPTIONS:
            yield _result(name, passed=True, because=f"Not compared: {why}.")
        return
    lost = sorted(set(before[RIGHT]) - set(now[RIGHT]))
    won = sorted(set(now[RIGHT]) - set(before[RIGHT]))
    yield _result(
        AS_RIGHT,
        passed=len(lost) - len(won) <= MAX_LOST,
        because=(
            f"{len(lost)} answers are wrong that were right before, and {len(won)} are right that were wrong."
        ),
        lost=lost,
        won=won,
    )
    yield _result(
        AS_GROUNDED,
        passed=now[GROUNDED] >= before[GROUNDED] - MAX_GROUNDEDNESS_LOSS,
        because=f"{now[GROUNDED]:.0%} of the answers are grounded, {before[GROUNDED]:.0%} before.",
    )
    yield _result(
        AS_CHEAP,
        passed=now[TOKENS] <= before[TOKENS] * MAX_TOKENS,
        because=f"{now[TOKENS]:,.0f} tokens, {before[TOKENS]:,.0f} before.",
    )


def _result(name: str, *, passed: bool, because: str, **more: list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=SCORES,
        check_name=name,
        severity=dg.AssetCheckSeverity.WARN,
        description=because,
        metadata={key: dg.MetadataValue.json(value) for key, value in more.items()},
    )
