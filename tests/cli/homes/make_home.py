"""Makes a home of plain Dagster: `python make_home.py FOLDER`, which is archived without its storage/."""

import sys

import dagster as dg


@dg.asset
def numbers() -> list[int]:
    return [1, 2, 3]


@dg.asset
def total(numbers: list[int]) -> int:
    return sum(numbers)


if __name__ == "__main__":
    with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
        dg.materialize([numbers, total], instance=instance)
