"""A run with an odd text in every place that Dagster has for one."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

SECRET = "hunter22"
FORBIDDEN = "forbidden"  # a text that a database refuses by a custom rule

TEXTS = {
    "NUL": "before\x00after",
    "half a surrogate pair": "caf\udce9 \ud83d",
    "control characters": "\x1b[31mred\x1b[0m \x07\x7f\x9b",
    "longer than a name": "x" * 251,
    "longer than a tag": "y" * 9_000,
    "longer in bytes": "é" * 240 + "🛫" * 200,
    "markup": "[a](b) | `c` <d> *e* $f$ {g} %(h)s \\i ' \" ; --",
    "paths": "../../up//./ and \\\\host\\share",
    "lines": "one\r\ntwo\n\n\tthree",
    "other scripts": "日本語 العربية \u202eright to left\u202c e\u0301 \ufffe",
    "spaces": "   ",
    "a secret": f"could not reach postgresql://me:{SECRET}@db/x with password='{SECRET}'",
}


@dg.op(config_schema=dg.Permissive())
def oddly(context: dg.OpExecutionContext) -> Iterator[AssetCheckEvaluation | dg.Output[None]]:
    text: str = context.op_config["text"]
    # These are columns of Dagster's own database.
    stored = storable(text)
    key = dg.AssetKey(["odd", stored])
    column = dg.TableColumn(text, "string", text)
    context.log_event(
        dg.AssetMaterialization(
            key,
            description=text,
            partition=stored,
            tags={"dagster/data_version": stored, "dagster/code_version": stored},
            metadata={
                "dagster/row_count": 3,
                "dagster/column_schema": dg.TableSchema([column]),
                "dagster/column_lineage": dg.TableColumnLineage({text: [dg.TableColumnDep(key, text)]}),
                text: text,
            },
        )
    )
    context.log.info(stored)
    yield AssetCheckEvaluation(key, "whole", False, {text: dg.MetadataValue.text(text)}, description=text)
    try:
        raise KeyError(text)
    except KeyError as cause:
        raise RuntimeError(text) from cause


@dg.job(executor_def=dg.in_process_executor)
def odd() -> None:
    oddly()


def storable(text: str) -> str:
    """The text as SQLite stores it, which refuses half a surrogate pair."""
    return text.encode(errors="replace").decode()


def config_with(text: str) -> dict[str, Any]:
    values = {"text": text, text or "empty": {text or "empty": text}, "several": [text, {"deep": text}]}
    return {"ops": {"oddly": {"config": values | {"secrets": {"first": SECRET}}}}}


def execute(instance: dg.DagsterInstance, text: str) -> str:
    """A run that fails; its id."""
    tags = {"dagster/partition": storable(text), "note": storable(text)}
    run = odd.execute_in_process(config_with(text), instance=instance, tags=tags, raise_on_error=False)
    return run.run_id
