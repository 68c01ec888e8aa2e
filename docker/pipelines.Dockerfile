# The image of all processes with Dagster, and of MLflow's server, which has the version of its clients.
#   docker build --file docker/pipelines.Dockerfile .
# With mirrors: --build-arg BASE=mirror.example/python:3.11.14-slim-bookworm, PIP_INDEX_URL and UV_DEFAULT_INDEX.
# The addresses are not in the last stage.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS installed
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements/installer.lock requirements/
RUN python -m venv /installer \
    && /installer/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/installer.lock
COPY requirements/shared.lock requirements/core.lock requirements/serving.lock requirements/ui.lock requirements/agent.lock requirements/pipelines.lock requirements/
RUN /installer/bin/uv venv --python "$(command -v python)" /opt/venv \
    && /installer/bin/uv pip install --python /opt/venv --require-hashes -r requirements/pipelines.lock
COPY requirements/build.lock requirements/
COPY LICENSE README.md pyproject.toml ./
COPY ledgerline ledgerline
# The builder of the wheel is locked as well, and is not in the last stage.
RUN /installer/bin/uv build --wheel --build-constraint requirements/build.lock --require-hashes --out-dir wheels \
    && /installer/bin/uv pip install --python /opt/venv --no-deps wheels/*.whl

FROM ${BASE}
# Folders of volumes: a new volume has the owner of the folder in the image.
RUN groupadd --gid 10001 ledgerline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp ledgerline \
    && install -d -o 10001 -g 10001 /opt/dagster /var/lib/dagster /var/lib/ledgerline /var/lib/mlflow /var/lib/requests
COPY --from=installed /opt/venv /opt/venv
COPY pyproject.toml /opt/ledgerline/
# The wheel does not contain the project.
COPY assets /opt/ledgerline/assets
COPY pipelines /opt/ledgerline/pipelines
COPY resources /opt/ledgerline/resources
COPY docker/code_server.py docker/kubernetes_run_launcher.py docker/prepare_mlflow.py docker/run_launcher.py /opt/ledgerline/
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/ledgerline \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MPLBACKEND=agg \
    MPLCONFIGDIR=/tmp/matplotlib \
    DAGSTER_HOME=/opt/dagster \
    LEDGERLINE_HOME=/var/lib/ledgerline \
    LEDGERLINE_PROJECT=/opt/ledgerline
WORKDIR /var/lib/ledgerline
USER 10001:10001
CMD ["ledgerline", "--help"]
