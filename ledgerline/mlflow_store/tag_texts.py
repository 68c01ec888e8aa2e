"""Removes secrets from the values of MLflow tags, and shortens them to a length that every store accepts."""

from collections.abc import Mapping

from ledgerline.cleaning.texts import cleaned, shortened

MAX_TAG_LENGTH = 5000


def tag_texts(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags with values without secrets, shortened to MAX_TAG_LENGTH characters."""
    return {name: shortened(cleaned(value, name), MAX_TAG_LENGTH) for name, value in tags.items()}
