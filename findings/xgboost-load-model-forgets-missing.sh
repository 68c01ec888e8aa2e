#!/usr/bin/env bash
# An XGBoost estimator made with missing=-999 answers something else, without a word, once it is saved and loaded.
#
# xgboost-cpu 3.2.0, scikit-learn 1.9.1, mlflow-skinny 3.17.2; Python 3.11.
# Expected: an estimator that was loaded from a file answers as the one that was saved. Whether its rows have NaN or
# another value where something is missing is part of how it reads rows, like the names of its columns, which are kept.
# Seen: xgboost/sklearn.py, `XGBModel.load_model` restores the objective, the kind of booster and the number of classes
# from the file, and leaves `missing` at NaN: -999 is a small number from then on. So do UBJSON, JSON and MLflow's
# flavour, which stores the former; a pickle keeps it. Nothing warns. Whoever stores estimators has to store `missing`
# beside the file and set it again.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  xgboost-cpu==3.2.0 scikit-learn==1.9.1 mlflow-skinny==3.17.2 pandas==2.3.3

cat >"$folder/ask.py" <<'PYTHON'
import sys

import mlflow.xgboost
import numpy as np
from xgboost import XGBRegressor

folder = sys.argv[1]
random = np.random.default_rng(0)
rows = random.normal(size=(200, 2))
outcome = np.where(random.random(200) < 0.5, rows[:, 0], 5.0)
rows[outcome == 5.0, 0] = -999.0  # not known: then the outcome is 5
row = [[-999.0, 0.0], [-3.0, 0.0]]

model = XGBRegressor(n_estimators=20, missing=-999.0).fit(rows, outcome)
before = model.predict(row)
print("trained:         ", before, "missing", model.missing)
differs = []
for name in ("model.ubj", "model.json"):
    model.save_model(f"{folder}/{name}")
    again = XGBRegressor()
    again.load_model(f"{folder}/{name}")
    differs.append(abs(again.predict(row) - before).max())
    print(f"{name + ':':17}", again.predict(row), "missing", again.missing)
mlflow.xgboost.save_model(model, f"{folder}/mlflow", pip_requirements=["xgboost"])
again = mlflow.xgboost.load_model(f"{folder}/mlflow")
differs.append(abs(again.predict(row) - before).max())
print("MLflow's flavour:", again.predict(row), "missing", again.missing)
sys.exit(0 if min(differs) > 1 else 1)
PYTHON

if "$folder/venv/bin/python" -W ignore "$folder/ask.py" "$folder"; then
  echo "As described: the loaded estimators take -999 for a number."
else
  echo "Changed: a loaded estimator answers as before."
  exit 1
fi
