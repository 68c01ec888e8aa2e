"""Rules for tables, as functions of plain data. They are assigned to tables in checks.py."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MAX_EXAMPLES = 5

# A single column that separates late from punctual flights this well cannot be known before departure.
LEAKING_AUC = 0.85


@dataclass(frozen=True)
class Finding:
    """The result of a rule.

    Attributes:
        passed: True if the table meets the rule.
        text: Result in words, with numbers.
        details: Further numbers by name.
    """

    passed: bool
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


def has_declared_columns(stored: "Iterable[pa.Table]", schema: dg.TableSchema) -> Finding:
    """Check that every file has the declared columns and types, and that required columns have no gaps."""
    from ledgerline.dagster.storage.arrow_tables import arrow_schema

    declared = {item.name: item.type for item in arrow_schema(schema)}
    required = [column.name for column in schema.columns if not column.constraints.nullable]
    problems: set[str] = set()
    for table in stored:
        actual = {item.name: item.type for item in table.schema}
        problems |= {f"{name} is missing" for name in declared.keys() - actual.keys()}
        problems |= {f"{name} is not declared" for name in actual.keys() - declared.keys()}
        for name in declared.keys() & actual.keys():
            if actual[name] != declared[name]:
                problems.add(f"{name} is {actual[name]}, declared is {declared[name]}")
        for name in required:
            if name in actual and table[name].null_count:
                problems.add(f"{name} has gaps")
    if problems:
        return Finding(False, "; ".join(sorted(problems)))
    return Finding(True, f"{len(declared)} columns as declared")


def has_unique_key(rows: "pd.DataFrame", key: Sequence[str]) -> Finding:
    """Check that no two rows have the same key."""
    repeated = rows[rows.duplicated(list(key), keep=False)]
    if repeated.empty:
        return Finding(True, f"{len(rows):,} rows, one for each {', '.join(key)}")
    examples = repeated[list(key)].drop_duplicates().head(MAX_EXAMPLES).to_dict("records")
    return Finding(False, f"{len(repeated):,} rows share a key, for example {examples[0]}")


def has_plausible_values(rows: "pd.DataFrame", ranges: Mapping[str, tuple[float, float]]) -> Finding:
    """Check that every value lies in the range of its column; gaps are ignored."""
    outside = {}
    for name, (lowest, highest) in ranges.items():
        wrong = rows.loc[(rows[name] < lowest) | (rows[name] > highest), name]
        if not wrong.empty:
            outside[name] = f"{len(wrong):,} outside {lowest:g} to {highest:g}, as {wrong.iloc[0]}"
    if outside:
        return Finding(False, "; ".join(f"{name}: {text}" for name, text in outside.items()))
    return Finding(True, f"{len(ranges)} columns within their ranges")


def has_rows_of_source(stored: "pd.Series", source: "pd.Series") -> Finding:
    """Check that each partition has as many rows as the source.

    Args:
        stored: Number of stored rows by partition.
        source: Number of rows of the source by partition.
    """
    import pandas as pd

    both = pd.DataFrame({"stored": stored, "source": source}).fillna(0).astype(int)
    differing = both[both["stored"] != both["source"]]
    details = {"stored_rows": int(both["stored"].sum()), "source_rows": int(both["source"].sum())}
    if differing.empty:
        return Finding(True, f"{details['stored_rows']:,} rows, as many as the source has", details)
    first = differing.iloc[0]
    return Finding(
        False,
        f"{len(differing)} of {len(both)} partitions differ: {differing.index[0]} has "
        f"{first['stored']:,} rows, the source {first['source']:,}",
        details,
    )


def is_known_before_departure(
    rows: "pd.DataFrame",
    features: Sequence[str],
    label: str,
    column_lineage: dg.TableColumnLineage,
    known_only_afterwards: Iterable[str],
) -> Finding:
    """Check that no feature is derived from data that is known only after departure, or reveals the label.

    Args:
        rows: Rows of the feature table.
        features: Columns that a model may use.
        label: Column of the outcome.
        column_lineage: Upstream columns of each column.
        known_only_afterwards: Upstream columns that no feature may derive from.
    """
    late_knowledge = set(known_only_afterwards)
    problems = []
    for name in features:
        sources = {dep.column_name for dep in column_lineage.deps_by_column.get(name, [])}
        if name in late_knowledge:
            problems.append(f"{name} is known only afterwards")
        elif sources & late_knowledge:
            problems.append(f"{name} derives from {', '.join(sorted(sources & late_knowledge))}")
        elif not sources:
            problems.append(f"{name} does not say what it derives from")
    known = rows[rows[label].notna()]
    telling = {name: _separation(known[name], known[label]) for name in features}
    problems += [
        f"{name} alone tells the outcome (ROC AUC {auc:.2f})"
        for name, auc in telling.items()
        if auc > LEAKING_AUC
    ]
    if problems:
        return Finding(False, "; ".join(problems))
    strongest = max(telling, key=lambda name: telling[name])
    return Finding(
        True, f"{len(features)} features; the most telling is {strongest}, {telling[strongest]:.2f}"
    )


def _separation(values: "pd.Series", label: "pd.Series") -> float:
    """Return how well one column separates the two outcomes: ROC AUC from 0.5 (not at all) to 1."""
    import pandas as pd

    late = label.astype(bool)
    positives, negatives = int(late.sum()), int((~late).sum())
    if not pd.api.types.is_numeric_dtype(values) or values.isna().all():
        return 0.5  # only the lineage of texts is checked
    if not positives or not negatives:
        return 0.5
    ranks = values.astype(float).fillna(values.astype(float).median()).rank()
    # ROC AUC is the Mann-Whitney U statistic over the number of pairs.
    u = ranks[late].sum() - positives * (positives + 1) / 2
    auc = float(u / (positives * negatives))
    return max(auc, 1 - auc)
