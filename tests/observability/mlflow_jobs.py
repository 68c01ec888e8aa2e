"""Jobs whose runs are exported to MLflow. Processes that execute some of them import this module."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.instance.ref import InstanceRef
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from ledgerline.dagster.tracking import MLflowResource
from ledgerline.ledger import ids

MONTHS = dg.StaticPartitionsDefinition(["2013-01", "2013-02"])
PLANES_VERSION = "planes of 2013, " + "7" * 64


@dg.op(out=dg.DynamicOut(int), config_schema={"steps": int})
def split(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[int]]:
    for number in range(context.op_config["steps"]):
        yield dg.DynamicOutput(number, mapping_key=str(number))


@dg.op
def double(number: int) -> int:
    return 2 * number


@dg.job(executor_def=dg.in_process_executor)
def mapping() -> None:
    split().map(double)


class Database(dg.ConfigurableResource):
    password: str
    url: str


@dg.op(config_schema=dg.Permissive())
def learn(database: Database) -> None: ...


@dg.job(resource_defs={"database": Database.configure_at_launch()}, executor_def=dg.in_process_executor)
def learning() -> None:
    learn()


@dg.op(config_schema={"fails": bool}, retry_policy=dg.RetryPolicy(max_retries=1))
def clean(context: dg.OpExecutionContext) -> None:
    if context.retry_number == 0 or context.op_config["fails"]:
        try:
            raise KeyError("tailnum")
        except KeyError as error:
            raise ValueError("row 7 has no plane | none") from error


@dg.job(executor_def=dg.in_process_executor)
def cleaning() -> None:
    clean()


# Assets


@dg.asset
def planes() -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={"dagster/row_count": 3_322}, data_version=dg.DataVersion(PLANES_VERSION)
    )


@dg.asset(
    partitions_def=MONTHS,
    deps=[planes],
    check_specs=[
        dg.AssetCheckSpec("has_rows", asset="flights"),
        dg.AssetCheckSpec("has_seats", asset="flights"),
    ],
)
def flights() -> dg.MaterializeResult:
    required = dg.TableColumnConstraints(nullable=False)
    columns = [
        dg.TableColumn("tailnum", "string", constraints=required),
        dg.TableColumn("seats", "double"),
    ]
    return dg.MaterializeResult(
        metadata={"dagster/partition_row_count": 27_004, "dagster/column_schema": dg.TableSchema(columns)},
        data_version=dg.DataVersion("flights of January"),
        check_results=[
            dg.AssetCheckResult(check_name="has_rows", passed=True),
            dg.AssetCheckResult(check_name="has_seats", passed=False, severity=dg.AssetCheckSeverity.WARN),
        ],
    )


@dg.asset(partitions_def=MONTHS, deps=[flights])
def delay_model(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
    with mlflow.training_run(context, "small") as run:
        run.log_params({"max_iter": 4})


# The definitions of a project with dagster-mlflow


def following(name: str) -> dg.JobDefinition:
    """A job that tracks itself: `succeeding` or `failing`."""
    from dagster_mlflow import mlflow_tracking

    @dg.op(required_resource_keys={"mlflow"})
    def train(context: dg.OpExecutionContext) -> None:
        context.resources.mlflow.log_param("depth", 3)
        context.resources.mlflow.log_metric("auc", 0.7)
        if name == "failing":
            raise ValueError("the loss is not a number")

    @dg.job(name=name, resource_defs={"mlflow": mlflow_tracking}, executor_def=dg.in_process_executor)
    def job() -> None:
        train()

    return job


def execute_following(name: str, run_id: str, instance_ref: InstanceRef, resource: Mapping[str, Any]) -> None:
    """Execute such a run; called in a new process, which exits as processes of runs do."""
    with dg.DagsterInstance.from_ref(instance_ref) as instance:
        following(name).execute_in_process(
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
            run_config={"resources": {"mlflow": {"config": dict(resource)}}},
        )


def execute(run: dg.DagsterRun, instance: dg.DagsterInstance) -> None:
    """Execute a run of `mapping` that exists."""
    execute_run(InMemoryJob(mapping), run, instance)


def root_span(run_id: str) -> ReadableSpan:
    """Return the beginning of the trace of a run."""
    context = SpanContext(ids.trace_id(run_id), ids.run_span_id(run_id), is_remote=False)
    return ReadableSpan("run", context, start_time=1, end_time=2)
