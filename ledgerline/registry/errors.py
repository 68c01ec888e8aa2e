"""The base class of the registry's errors."""

from ledgerline.errors import LedgerlineError


class RegistryError(LedgerlineError):
    """The model registry cannot do what was requested."""
