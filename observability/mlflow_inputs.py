"""What went into a run and came out, for MLflow: run config as params, versions of assets as datasets.

Who writes them: mlflow_run.py.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from observability.cleaning import clean, cleaned, shortened
from observability.history import Materialisation, RunHistory
from observability.mlflow_metrics import entity_name
from observability.written import AssetRows, rows_kept

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Param

MAX_PARAMS = 200
MAX_PARAM_LENGTH = 6000  # the limits of mlflow/utils/validation.py
MAX_DATASET_NAME_LENGTH = 500
MAX_DIGEST_LENGTH = 36
MAX_INPUT_TAG_LENGTH = 500

SOURCE_TYPE = "dagster"
CONTEXT_TAG = "mlflow.data.context"
VERSION_TAG = "data_version"


@dataclass(frozen=True)
class Params:
    """Run config as MLflow params; `left_out` is how many there are beyond what one can look at."""

    params: "Sequence[Param]"
    left_out: int


def run_params(config: Mapping[str, Any]) -> Params:
    """Run config as params, sorted by name: `ops.delay_model.config.max_iter` = `300`."""
    from mlflow.entities import Param

    values: dict[str, str] = {}
    for path, value in _flat(cleaned(config), ()):
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        values.setdefault(entity_name(".".join(path)), shortened(text, MAX_PARAM_LENGTH))
    names = sorted(values)
    return Params([Param(name, values[name]) for name in names[:MAX_PARAMS]], len(names[MAX_PARAMS:]))


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves. A list of plain values is one."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, (*path, str(name)))
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for index, part in enumerate(value):
            yield from _flat(part, (*path, str(index)))
    elif path:
        yield path, value


@dataclass
class _Version:
    """One version of an asset that the run read or wrote."""

    asset: str
    data_version: str
    context: str
    rows: int | None = None
    partitions: set[str] = field(default_factory=set)
    schema: dg.TableSchema | None = None

    def add(self, written: Materialisation) -> None:
        if written.partition is not None:
            self.partitions.add(written.partition)
        self.schema = self.schema or written.schema


def run_datasets(now: RunHistory) -> "list[DatasetInput]":
    """The assets that the run read and did not write itself, and those that it wrote, by data version.

    The digest is the beginning of the data version: the runs that wrote and that read a version have the same
    dataset in MLflow, and can be found by it.
    """
    own = {written.asset for written in now.materialisations} | set(now.planned)
    versions: dict[tuple[str, str], _Version] = {}
    for written in now.materialisations:
        for read in written.reads:
            if read.asset not in own:
                key = read.asset, read.data_version
                versions.setdefault(key, _Version(*key, context="input"))
    for asset, left in now.written.items():
        for data_version, kept in _by_version(left).items():
            # Dagster gives all partitions that one step writes the same version.
            version = versions.setdefault(
                (asset, data_version), _Version(asset, data_version, context="output", rows=rows_kept(kept))
            )
            for part, _ in kept:
                version.add(part)
    return [_dataset(version) for version in versions.values()]


def _by_version(left: AssetRows) -> dict[str, list[tuple[Materialisation, Sequence[Materialisation]]]]:
    versions: dict[str, list[tuple[Materialisation, Sequence[Materialisation]]]] = {}
    for part, parts in left.kept:
        if part.data_version is not None:
            versions.setdefault(part.data_version, []).append((part, parts))
    return versions


def _dataset(version: _Version) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile: dict[str, int] = {}
    if version.rows is not None:
        profile["num_rows"] = version.rows
    if version.partitions:
        profile["num_partitions"] = len(version.partitions)
    entity = Dataset(
        name=shortened(version.asset, MAX_DATASET_NAME_LENGTH),
        digest=version.data_version[:MAX_DIGEST_LENGTH],
        source_type=SOURCE_TYPE,
        source=json.dumps({"asset": version.asset}),
        schema=json.dumps({"mlflow_colspec": _columns(version.schema)}) if version.schema else None,
        profile=json.dumps(profile) if profile else None,
    )
    tags = [
        InputTag(CONTEXT_TAG, version.context),
        InputTag(VERSION_TAG, shortened(version.data_version, MAX_INPUT_TAG_LENGTH)),
    ]
    return DatasetInput(entity, tags)


def _columns(schema: dg.TableSchema) -> list[dict[str, object]]:
    return [
        {
            "name": clean(column.name),
            "type": clean(column.type),
            "required": not column.constraints.nullable,
        }
        for column in schema.columns
    ]
