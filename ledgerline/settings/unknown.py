"""Warns of variables that look like settings and are not, so that users notice misspelled names."""

import logging
from collections.abc import Iterable
from functools import cache

PREFIX = "LEDGERLINE_"

# Variables that programs beside this library read, with their meaning.
OTHER_VARIABLES = {
    "LEDGERLINE_PROJECT": "Folder of the project, for processes that work in another folder.",
    "LEDGERLINE_VERSION": "Tag of the images of docker/compose.yaml.",
    "LEDGERLINE_CPUS": "Processors of a container of docker/compose.yaml.",
    "LEDGERLINE_JAEGER_PORT": "Port of Jaeger in docker/compose.yaml.",
    "LEDGERLINE_PROMETHEUS_PORT": "Port of Prometheus in docker/compose.yaml.",
    "LEDGERLINE_RUN_SHARE": "Share of the runs whose traces docker/compose.sampling.yaml keeps.",
    "LEDGERLINE_SLOW_RUN_SECONDS": "Duration from which docker/compose.sampling.yaml keeps a trace.",
    "LEDGERLINE_SERVERS": "Folder of the servers that docker/servers/build builds for the tests.",
}

logger = logging.getLogger(__name__)


def warn_of_unknown(names: Iterable[str]) -> None:
    """Log a warning, once per process, for each variable that begins with LEDGERLINE_ and is not a setting.

    This is not an error, because a later version may have the setting.
    """
    for name in sorted(names):
        if name.startswith(PREFIX):
            _warn_if_unknown(name)


@cache
def _warn_if_unknown(name: str) -> None:
    from ledgerline.settings.reference import SETTINGS

    known = {*OTHER_VARIABLES, *(setting.name for setting in SETTINGS)}
    if name in known:
        return
    from difflib import get_close_matches

    nearest = get_close_matches(name, known, n=1)
    question = f" Did you mean {nearest[0]}?" if nearest else ""
    logger.warning("%s is not a setting of this version, and has no effect.%s", name, question)
