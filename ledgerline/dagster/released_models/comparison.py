"""The asset that compares staging with production, and its checks. The alias is moved in production.py."""

from collections.abc import Iterator

import dagster as dg

from ledgerline.dagster.released_models.asset_of_spec import asset_of_spec
from ledgerline.dagster.released_models.comparison_config import ComparisonConfig
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.evaluated_version import EvaluatedVersion
from ledgerline.dagster.released_models.named_assets import storage_of
from ledgerline.dagster.released_models.retries import RETRY
from ledgerline.dagster.storage.io_managers import Records
from ledgerline.evaluation.rulings import Ruling


def comparison_asset(model: ReleasedModel) -> dg.AssetsDefinition:
    """Make the asset that compares the version in staging with the one in production."""
    spec = model.translator.comparison_spec(model)

    @asset_of_spec(
        spec,
        io_manager_key="records",
        output_required=False,
        retry_policy=RETRY,
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
