"""The asset that compares staging with production, with its configuration, its record and its checks.

comparing.py compares, and production.py moves the alias.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from ledgerline.dagster.released_models.asset_of_spec import asset_of_spec
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.named_assets import storage_of
from ledgerline.dagster.storage.io_managers import Records
from ledgerline.evaluation.rulings import Ruling


class ComparisonConfig(dg.Config):
    """The versions that are compared, and the rows that they are compared on."""

    version: int | None = Field(
        default=None, ge=1, description="Version to evaluate. Default: the one in staging."
    )
    against: int | None = Field(
        default=None, ge=1, description="Version to compare it with. Default: the one in production."
    )
    partition: str | None = Field(
        default=None,
        description=(
            "Partition of the versions' asset (2013-07-01) whose evaluation rows are used. Default: the rows "
            "that the version records."
        ),
    )
    replay_since: str | None = Field(
        default=None,
        description=(
            "Also replay the logged requests to the service since this time (2013-07-01T12:00:00; UTC unless "
            "it has a time zone) with the version, and report how its predictions differ. Default: no replay."
        ),
    )


@dataclass(frozen=True)
class EvaluatedVersion:
    """The outcome of a comparison.

    Attributes:
        against: Version that it was compared with; None for a baseline.
        rulings: Ruling of each gate, as `ledgerline.evaluation.rulings.Ruling`.
        evidence_sha256: Seal of the evidence.
        evidence_run_id: MLflow run that stores the evidence and the report.
        entry: Number of the entry in the journal of the model.
        replay: Replay of logged requests, as `requests.replay.Replay`; None without a replay.
    """

    version: int
    against: int | None
    rows: int
    rulings: list[dict[str, Any]]
    passed: bool
    evidence_sha256: str
    evidence_run_id: str
    entry: int
    run_id: str
    replay: dict[str, Any] | None = None


def comparison_asset(model: ReleasedModel) -> dg.AssetsDefinition:
    """Make the asset that compares the version in staging with the one in production."""
    spec = model.translator.comparison_spec(model)

    @asset_of_spec(
        spec,
        io_manager_key="records",
        output_required=False,
        required_resource_keys={"mlflow", "registry", "request_log", storage_of(model.rows)},
    )
    def compare(
        context: dg.AssetExecutionContext, config: ComparisonConfig
    ) -> Iterator[dg.Output[EvaluatedVersion]]:
        # The step imports it, so that definitions load faster.
        from ledgerline.dagster.released_models.comparing import compare_versions

        yield from compare_versions(context, model, config)

    return compare


def gate_checks(model: ReleasedModel) -> dg.AssetChecksDefinition:
    """Make a check for each gate; a version that fails a gate is not promoted."""
    key = model.names.comparison

    @dg.multi_asset_check(
        name=f"{key.to_python_identifier()}_gates",
        specs=[
            dg.AssetCheckSpec(gate.rule, asset=key, description=gate.description)
            for gate in model.evaluated_by.gates
        ],
        can_subset=True,
    )
    def apply_gates(
        context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
    ) -> Iterator[dg.AssetCheckResult]:
        """Report the ruling of each gate as a check.

        The checks do not block: a promotion reads the sealed evidence. Blocking checks would make Dagster
        report the run and the promotion as failed, although both work as intended.
        """
        evaluated = records.read(key, None, EvaluatedVersion)
        chosen = {check.name for check in context.selected_asset_check_keys}
        for ruling in (Ruling(**fields) for fields in evaluated.rulings):
            if ruling.rule in chosen:
                numbers = {"value": ruling.value, "threshold": ruling.threshold}
                yield dg.AssetCheckResult(
                    passed=ruling.passed,
                    severity=dg.AssetCheckSeverity.WARN,
                    check_name=ruling.rule,
                    description=ruling.text,
                    metadata={"version": evaluated.version}
                    | {name: value for name, value in numbers.items() if value is not None},
                )

    return apply_gates
