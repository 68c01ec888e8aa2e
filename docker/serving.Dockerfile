# The image of `ledgerline serve`, without Dagster and with MLflow's client only.
#   docker build --file docker/serving.Dockerfile .
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
COPY requirements/shared.lock requirements/serving.lock requirements/
RUN /installer/bin/uv venv --python "$(command -v python)" /opt/venv \
    && /installer/bin/uv pip install --python /opt/venv --require-hashes -r requirements/serving.lock
COPY requirements/build.lock requirements/
COPY LICENSE README.md pyproject.toml ./
COPY ledgerline ledgerline
# The builder of the wheel is locked as well, and is not in the last stage. The wheel has the whole library; serving
# does not import the parts that need Dagster.
RUN /installer/bin/uv build --wheel --build-constraint requirements/build.lock --require-hashes --out-dir wheels \
    && /installer/bin/uv pip install --python /opt/venv --no-deps wheels/*.whl

FROM ${BASE}
# Folders of volumes: a new volume has the owner of the folder in the image.
RUN groupadd --gid 10001 ledgerline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp ledgerline \
    && install -d -o 10001 -g 10001 /var/lib/ledgerline /var/lib/requests
COPY --from=installed /opt/venv /opt/venv
COPY pyproject.toml /opt/ledgerline/
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LEDGERLINE_HOME=/var/lib/ledgerline \
    LEDGERLINE_PROJECT=/opt/ledgerline \
    LEDGERLINE_SERVING_HOST=0.0.0.0
WORKDIR /var/lib/ledgerline
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --start-interval=1s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/v2/health/live', timeout=4)"]
CMD ["ledgerline", "serve"]
