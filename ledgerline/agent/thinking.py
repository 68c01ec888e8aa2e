"""Declares how much a language model thinks before it responds. The providers translate it."""

from enum import StrEnum


class Thinking(StrEnum):
    """The amount of thinking: on or off, or a level for models that have levels."""

    OFF = "off"
    ON = "on"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
