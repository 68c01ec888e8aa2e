"""When drift is too far. How it is measured: drift.py; what is done about it: pipelines/retraining.py."""

from collections.abc import Iterator

import dagster as dg

from assets.drift import DRIFT_ASSET, SCHEDULE_FEATURES, PredictionsDrift
from assets.rules import Finding
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.io_managers import Records

SCORES_STABLE = "scores_stable"
FEATURES_STABLE = "features_stable"
CALIBRATED_ON_OUTCOMES = "calibrated_on_outcomes"
MONTH_METADATA = "month"

# The rule of thumb since Lewis (1994) and Siddiqi (2006) is that 0.1 to 0.25 is some change, and more is
# another population. In 2013 a model that is judged on its own month has 0.00 to 0.19, but for October:
# 0.41. One that goes on being used after October reaches 1.1 in November.
MOST_SCORE_PSI = 0.25

# Schedule and fleet of 2013 change by 0.04 at most, gaps by 0.13; weekdays alone, in a month of which only
# the first days are scored, by 0.12.
MOST_FEATURE_PSI = 0.2

# How many flights are late changes from month to month (14% in September, 34% in December), and that is the
# weather rather than the model: of models judged on their own month the median error is 0.05. Above 0.1 are
# April (just), September and December, where people are told something quite different from what happens.
MOST_CALIBRATION_ERROR = 0.1

# Bad weather makes days unlike others, and a storm a week: of single weeks of 2013 every fourth has a score
# PSI above 0.25, of three weeks only those of a month that has it too.
LEAST_DAYS = 21


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            SCORES_STABLE,
            asset=DRIFT_ASSET,
            description="The probabilities are spread about as they are over the flights learned from.",
        ),
        dg.AssetCheckSpec(
            FEATURES_STABLE,
            asset=DRIFT_ASSET,
            description="Schedule and fleet are about those learned from, and the weather is still reported.",
        ),
        dg.AssetCheckSpec(
            CALIBRATED_ON_OUTCOMES,
            asset=DRIFT_ASSET,
            description="Flights were late about as often as they were said to be.",
        ),
    ],
    # So that the UI offers to execute a single check.
    can_subset=True,
)
def delay_predictions_drift_checks(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> Iterator[dg.AssetCheckResult]:
    """Whether the drift of a month asks for somebody's attention; of too few days nothing is said."""
    drift = records.read(DRIFT_ASSET, _month_to_judge(context), PredictionsDrift)
    chosen = {key.name for key in context.selected_asset_check_keys}
    for name, finding in judge(drift).items():
        if name in chosen:
            yield dg.AssetCheckResult(
                passed=finding.passed,
                check_name=name,
                # A feature may change and the model be as good as before. A score is what people get.
                severity=dg.AssetCheckSeverity.WARN
                if name == FEATURES_STABLE
                else dg.AssetCheckSeverity.ERROR,
                description=finding.text,
                metadata={MONTH_METADATA: drift.month, "version": drift.version, **finding.details},
            )


def judge(drift: PredictionsDrift) -> dict[str, Finding]:
    """What each check finds, by its name."""
    if drift.days < LEAST_DAYS:
        text = (
            f"Not judged: {drift.days} days are scored; fewer than {LEAST_DAYS} differ by their weather alone"
        )
        return dict.fromkeys((SCORES_STABLE, FEATURES_STABLE, CALIBRATED_ON_OUTCOMES), Finding(True, text))
    return {
        SCORES_STABLE: has_stable_scores(drift),
        FEATURES_STABLE: has_stable_features(drift),
        CALIBRATED_ON_OUTCOMES: is_calibrated(drift),
    }


def has_stable_scores(drift: PredictionsDrift) -> Finding:
    """The probabilities are spread about as over the flights learned from."""
    return Finding(
        drift.score_psi <= MOST_SCORE_PSI,
        f"PSI {drift.score_psi:.3f} of the probabilities, at most {MOST_SCORE_PSI} is stable: the mean is "
        f"{drift.mean_score:.3f}, over the flights learned from it is {drift.mean_training_score:.3f}",
        {"score_psi": drift.score_psi},
    )


def has_stable_features(drift: PredictionsDrift) -> Finding:
    """Schedule and fleet are about those learned from, and the weather is still reported."""
    judged = {name: drift.feature_psi[name] for name in SCHEDULE_FEATURES}
    judged |= {f"gaps of {name}": psi for name, psi in drift.gaps_psi.items()}
    largest = sorted(judged, key=lambda name: judged[name], reverse=True)
    changed = [name for name in largest if judged[name] > MOST_FEATURE_PSI]
    shown = ", ".join(f"{name} {judged[name]:.3f}" for name in changed or largest[:1])
    text = f"PSI above {MOST_FEATURE_PSI}: {shown}" if changed else f"The largest PSI is that of {shown}"
    return Finding(not changed, text, {"largest_psi": judged[largest[0]]})


def is_calibrated(drift: PredictionsDrift) -> Finding:
    """Flights were late about as often as they were said to be."""
    if drift.calibration_error is None or drift.days_with_outcome < LEAST_DAYS:
        return Finding(True, f"Not judged: outcomes are known of {drift.days_with_outcome} days")
    return Finding(
        drift.calibration_error <= MOST_CALIBRATION_ERROR,
        f"Calibration error {drift.calibration_error:.3f} on {drift.flights_with_outcome:,} flights, at most "
        f"{MOST_CALIBRATION_ERROR} is calibrated: {drift.late_rate:.1%} were late, said were "
        f"{drift.mean_score_of_known:.1%}",
        {"calibration_error": drift.calibration_error},
    )


def _month_to_judge(context: dg.AssetCheckExecutionContext) -> str:
    if context.has_partition_key:
        return context.partition_key
    stored = context.instance.get_materialized_partitions(DRIFT_ASSET)
    if not stored:
        raise PermanentFailure(
            f"{DRIFT_ASSET.to_user_string()} has no month to judge.", "Run the job watch_predictions first."
        )
    return max(stored)
