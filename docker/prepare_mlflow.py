"""Creates MLflow's tables and the experiment of traces before MLflow's server starts.

Otherwise several workers of the server would migrate the database at the same time. The collector needs the
id of the experiment, which the database chooses.
"""

import os
import sys

from ledgerline.settings.project import Project


def prepare(uri: str, experiment: str) -> str:
    """Create or migrate the tables, create the experiment of the project, and return its id."""
    from mlflow.db import upgrade
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    upgrade.callback(uri)
    store = SqlAlchemyStore(uri, "mlflow-artifacts:/")  # as a server that proxies artifacts does
    existing = store.get_experiment_by_name(experiment)
    return existing.experiment_id if existing is not None else store.create_experiment(experiment)


def main() -> None:
    """Prepare the database that a variable names, and compare the experiment's id with the collector's."""
    experiment = Project.from_environment(os.environ).experiment  # noqa: TID251 (a script of the stack)
    experiment_id = prepare(os.environ["MLFLOW_BACKEND_STORE_URI"], experiment)  # noqa: TID251
    if experiment_id != os.environ["OTELCOL_MLFLOW_EXPERIMENT_ID"]:  # noqa: TID251
        sys.exit(
            f"The experiment {experiment} has the id {experiment_id}. Write OTELCOL_MLFLOW_EXPERIMENT_ID="
            f"{experiment_id} into docker/.env."
        )


if __name__ == "__main__":
    main()
