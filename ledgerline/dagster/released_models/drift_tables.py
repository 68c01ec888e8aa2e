"""Tables of drift, for the metadata in Dagster's UI."""

from collections.abc import Mapping

import dagster as dg

from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.watch import Watch


def features_table(
    model: ReleasedModel, watch: Watch, feature_psi: Mapping[str, float], gaps_psi: Mapping[str, float]
) -> dg.TableMetadataValue:
    """Return the index of each feature, and which of its numbers the check evaluates."""
    by_psi = set(watch.evaluated_features(model.features))
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    **_indices(name, psi, gaps_psi),
                    "evaluated by": _evaluated_by(name in by_psi, name in watch.gaps),
                }
            )
            for name, psi in feature_psi.items()
        ]
    )


def inputs_table(feature_psi: Mapping[str, float], gaps_psi: Mapping[str, float]) -> dg.TableMetadataValue:
    """Return the index of each column of requests."""
    return dg.MetadataValue.table(
        [dg.TableRecord(_indices(name, psi, gaps_psi)) for name, psi in feature_psi.items()]
    )


def scores_table(
    score_psi: Mapping[str, float], mean_training_score: Mapping[str, float], mean_score: Mapping[str, float]
) -> dg.TableMetadataValue:
    """Return the index and the means of each column of predictions."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "prediction": name,
                    "psi": round(psi, 4),
                    "mean over training rows": f"{mean_training_score[name]:.6g}",
                    "mean": f"{mean_score[name]:.6g}",
                }
            )
            for name, psi in score_psi.items()
        ]
    )


def outcomes_table(predicted: Mapping[str, float], observed: Mapping[str, float]) -> dg.TableMetadataValue:
    """Return predicted and observed values, for rows whose outcome is known."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {"prediction": name, "predicted": f"{value:.6g}", "observed": f"{observed[name]:.6g}"}
            )
            for name, value in predicted.items()
        ]
    )


def _evaluated_by(psi: object, gaps: object) -> str:
    return " and ".join(name for name, is_so in (("psi", psi), ("gaps", gaps)) if is_so) or "nothing"


def _indices(name: str, psi: float, gaps_psi: Mapping[str, float]) -> dict[str, str | float]:
    gaps = round(gaps_psi[name], 4) if name in gaps_psi else ""
    return {"feature": name, "psi": round(psi, 4), "psi of gaps": gaps}
