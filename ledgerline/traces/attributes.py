"""The names of all span attributes. docs/reference/span-attributes.md describes their values."""

from ledgerline.ledger.ids import RUN_ID_ATTRIBUTE

# Attributes of runs
RUN_ID = RUN_ID_ATTRIBUTE
RUN_STATUS = "dagster.run.status"
RUN_URL = "dagster.run.url"
ROOT_RUN_ID = "dagster.run.root_id"
PARENT_RUN_ID = "dagster.run.parent_id"
MLFLOW_URL = "dagster.run.mlflow_url"
JOB = "dagster.job.name"
PARTITION = "dagster.partition"
BACKFILL = "dagster.backfill.id"
BACKFILL_STATUS = "dagster.backfill.status"
BACKFILL_FAILED_RUNS = "dagster.backfill.failed_runs"
TITLE = "dagster.title"
SCHEDULE = "dagster.schedule.name"
SENSOR = "dagster.sensor.name"
CODE_LOCATION = "dagster.code_location"
SKIPPED = "dagster.steps.skipped"
USER_TAG = "dagster.tag.{}"  # a tag that a user set on the run
# Attributes of attempts
STEP = "dagster.step.key"
ATTEMPT = "dagster.step.attempt"
OUTCOME = "dagster.step.outcome"
OP = "dagster.op.name"
PID = "process.pid"
CLOCK_BEHIND = "dagster.step.clock_behind_seconds"
# Attributes of assets and checks
ASSETS = "dagster.asset.keys"
OWNERS = "dagster.asset.owners"
DATA_VERSIONS = "dagster.asset.data_versions"
CODE_VERSION = "dagster.asset.code_version"
READ_VERSIONS = "dagster.asset.read_versions"
READ_CAVEATS = "dagster.asset.read_caveats"  # doubts about the versions that were read
PARTITIONS = "dagster.asset.partitions"
ROWS = "dagster.asset.row_count"
NUMBER = "dagster.metadata.{}"  # a number in the metadata of an asset, `asset/name`, or of a check
CHECKS_PASSED = "dagster.checks.passed"
CHECKS_FAILED = "dagster.checks.failed"
CHECK = "dagster.check.name"
CHECK_PASSED = "dagster.check.passed"
CHECK_SEVERITY = "dagster.check.severity"
ASSET = "dagster.asset.key"
CUT = "ledgerline.cut"  # lists and maps that were shortened, with the number of values left out
# Attribute of links, with the kind of the other span: "parent run", "previous attempt", "backfill", "caller"
# or "run"
LINK = "dagster.link"

# Attributes that MLflow's UI displays beside the name of a span
SPAN_TYPE = "mlflow.spanType"
WORKFLOW, TASK = "WORKFLOW", "TASK"
INPUTS = "mlflow.spanInputs"
OUTPUTS = "mlflow.spanOutputs"

# Attributes of predictions
MODEL = "ml.model.name"
MODEL_VERSION = "ml.model.version"
MODEL_ALIAS = "ml.model.alias"
MODEL_SHA256 = "ml.model.sha256"
TRAINING_RUN_ID = "ml.model.training_run_id"
ANSWERED_ROWS = "ml.answer.rows"
ROWS_TOGETHER = "ml.answer.batch_rows"  # number of rows in the batch that the model predicted
WAITED_SECONDS = "ml.answer.waited_seconds"
PREDICT_SECONDS = "ml.answer.predict_seconds"
REQUEST_ID = "http.request.header.x-request-id"
