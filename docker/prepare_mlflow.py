"""Makes MLflow's database ready before its server starts: its tables, and the experiment that traces go to.

Several workers that find an empty or older database would all change it at once. And the collector needs the
id of the experiment, which the database chooses; in a new one, it is known.
"""

import os
import sys

from ledgerline.settings.project import Project


def prepare(uri: str, experiment: str) -> str:
    """Create or migrate the tables, and create the experiment of the project.

    Returns:
        The id of the experiment.
    """
    from mlflow.db import upgrade
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    upgrade.callback(uri)
    store = SqlAlchemyStore(uri, "mlflow-artifacts:/")  # as a server that proxies artifacts opens it
    found = store.get_experiment_by_name(experiment)
    return found.experiment_id if found is not None else store.create_experiment(experiment)


def main() -> None:
    """`prepare_mlflow.py`, with the database and the id that the collector has in variables."""
    experiment = Project.found(os.environ).experiment  # noqa: TID251 (a script of the stack)
    experiment_id = prepare(os.environ["MLFLOW_BACKEND_STORE_URI"], experiment)  # noqa: TID251
    if experiment_id != os.environ["OTELCOL_MLFLOW_EXPERIMENT_ID"]:  # noqa: TID251
        sys.exit(
            f"The experiment {experiment} has the id {experiment_id}: write OTELCOL_MLFLOW_EXPERIMENT_ID="
            f"{experiment_id} into docker/.env."
        )


if __name__ == "__main__":
    main()
