"""How much a language model thinks before it answers. How each server is told so: *_provider.py."""

from enum import StrEnum


class Thinking(StrEnum):
    """Whether to think, or for models that have levels, how much."""

    OFF = "off"
    ON = "on"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
