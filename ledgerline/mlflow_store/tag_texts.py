"""Values of MLflow tags: without secrets, and no longer than every store accepts."""

from collections.abc import Mapping

from ledgerline.cleaning.texts import cleaned, shortened

MAX_TAG_LENGTH = 5000


def tag_texts(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags with clean values, shortened to MAX_TAG_LENGTH characters."""
    return {name: shortened(cleaned(value, name), MAX_TAG_LENGTH) for name, value in tags.items()}
