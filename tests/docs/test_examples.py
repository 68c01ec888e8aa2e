"""Tests that the Python examples of how-to pages run."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import dagster as dg
import pandas as pd
import pytest

from ledgerline.evaluation.policy import Policy

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
MONTHS = dg.MonthlyPartitionsDefinition("2025-01-01", end_date="2025-05-01")


@dg.asset(partitions_def=MONTHS, io_manager_key="tables", metadata={"partition_expr": "month"})
def readings(context: dg.AssetExecutionContext) -> pd.DataFrame:
    """Energy that two buildings used in each hour of a month."""
    hours = pd.date_range(context.partition_key, periods=28 * 24, freq="h")
    rows = pd.DataFrame(
        {"time": [*hours, *hours], "building": ["Pool"] * len(hours) + ["School"] * len(hours)}
    )
    hour = rows["time"].dt.hour
    return pd.DataFrame(
        {
            "month": context.partition_key,
            "date": rows["time"].dt.strftime("%Y-%m-%d"),
            "building": rows["building"],
            "hour": hour,
            "temperature": 10.0 + hour % 7,
            "kwh": 30.0 + 2.0 * hour,
        }
    )


def code_of(name: str) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (HOW_TO / name).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A module for the code of a page; dataclasses need it among the imported ones."""
    module = ModuleType("example_of_a_page")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def run(code: str, module: ModuleType) -> None:
    exec(compile(code, module.__name__, "exec"), vars(module))  # noqa: S102 (the page is ours)


def test_the_projection_of_the_page_exports_a_run(module: ModuleType, tmp_path: Path) -> None:
    run("\n".join(code_of("write-a-projection.md")), module)
    module.test_the_seconds_of_a_step_are_in_the_file_of_its_run(tmp_path)
    assert module.export_step_seconds.name == "export_step_seconds"


def test_the_gate_of_the_page_refuses_too_few_rows(module: ModuleType) -> None:
    (code,) = (block for block in code_of("add-a-model.md") if "(Gate)" in block)
    run(code, module)
    gate = module.EnoughRows(least=10_000)
    ruling = gate.evaluate(SimpleNamespace(comparison=SimpleNamespace(rows=9_000)))
    assert (ruling.passed, ruling.text) == (False, "9,000 rows were compared, and 10,000 are required.")
    assert Policy([gate]).gates == (gate,)


def test_the_model_of_the_page_is_trained_and_released(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "LEDGERLINE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEDGERLINE_HOME", str(tmp_path))
    source = ModuleType("assets.readings")
    vars(source).update(MONTHS=MONTHS, readings=readings)
    monkeypatch.setitem(sys.modules, source.__name__, source)
    run("\n".join(block for block in code_of("add-a-model.md") if "(Gate)" not in block), module)

    with dg.DagsterInstance.ephemeral() as instance:
        everything = module.defs.resolve_implicit_global_asset_job_def()
        for month in MONTHS.get_partition_keys():
            everything.execute_in_process(
                instance=instance, partition_key=month, asset_selection=[readings.key]
            )
        training = module.defs.resolve_job_def("train_demand")
        training.execute_in_process(instance=instance, partition_key=MONTHS.get_last_partition_key())
        release = module.defs.resolve_job_def("release_demand").execute_in_process(instance=instance)
        materialised = {event.asset_key for event in release.get_asset_materialization_events()}

    assert {dg.AssetKey("comparison_demand"), dg.AssetKey("production_demand")} <= materialised
