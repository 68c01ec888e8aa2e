#!/usr/bin/env bash
# Every process that opens a Dagster instance needs a token of Kubernetes once killed runs are to be resumed.
#
# dagster 1.13.27, dagster-k8s 0.29.27, kubernetes 36.0.3; Python 3.11.
#
# Expected: run launchers are made by those who launch, as for an instance without `max_resume_run_attempts`, which
# opens anywhere: `dagster run list` reads the storages only.
# Seen: with `max_resume_run_attempts: 2` the instance constructs its run launcher while it is opened
# (`_initialize_run_monitoring` in dagster/_core/instance/methods/settings_methods.py), and `K8sRunLauncher` reads the
# service account's token in its constructor. A pod without a token cannot even list runs: "Service token file does not
# exist" (in a pod), "Service host/port is not set." (outside a cluster).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27 dagster-k8s==0.29.27 kubernetes==36.0.3

opens() { # MAX_RESUME_RUN_ATTEMPTS: prints what `dagster run list` ends with
    export DAGSTER_HOME="$folder/home-$1"
    mkdir "$DAGSTER_HOME"
    cat >"$DAGSTER_HOME/dagster.yaml" <<END
telemetry: {enabled: false}
run_monitoring: {enabled: true, max_resume_run_attempts: $1}
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config: {job_namespace: default, service_account_name: dagster, instance_config_map: dagster-instance, dagster_home: /opt/dagster, load_incluster_config: true}
END
    # It fails in the case that is shown.
    env -u KUBERNETES_SERVICE_HOST "$folder/venv/bin/dagster" run list 2>&1 | tail -n 1 || true
}

without=$(opens 0)
with=$(opens 2)
echo "max_resume_run_attempts 0: ${without:-no runs, no error}"
echo "max_resume_run_attempts 2: $with"
[[ $without != *ConfigException* && $with == *"Service host/port is not set."* ]]
