"""A project that does not use Ledgerline: `bakery.py DAGSTER_HOME` runs it twice, and prints the runs."""

import sys

import dagster as dg


@dg.asset
def flour() -> int:
    return 3


@dg.asset
def bread(flour: int) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": 5 * flour})


@dg.asset_check(asset=bread)
def crusty() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset(deps=[bread])
def burnt() -> None:
    raise ValueError("The oven is too hot.")


def main(home: str) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        for assets in ([flour, bread, crusty], [flour, bread, crusty, burnt]):
            result = dg.materialize(assets, instance=instance, raise_on_error=False)
            print(result.run_id)  # noqa: T201 (read by the test)


if __name__ == "__main__":
    main(*sys.argv[1:])
