"""Reads the exceptions in Dagster's event log, without secrets."""

import dagster as dg

from ledgerline.cleaning.texts import clean
from ledgerline.ledger.history import Error

# Prefixes of the exception classes that Dagster wraps around the exception of a step.
WRAPPERS = ("DagsterExecution", "DagsterResourceFunction", "DagsterUserCode", "RetryRequested")


def error_from(info: "dg.SerializableErrorInfo") -> Error:
    """Return the exception that a step raised, without the exceptions that Dagster wrapped around it."""
    while info.cause is not None and (info.cls_name or "").startswith(WRAPPERS):
        info = info.cause
    causes = []
    cause = info.cause or info.context
    while cause is not None:
        causes.append(_error(cause))
        cause = cause.cause or cause.context
    error = _error(info)
    return Error(error.type, error.message, error.stack, tuple(causes))


def _error(info: "dg.SerializableErrorInfo") -> Error:
    name, _, message = info.message.strip().partition(": ")
    own_name = info.cls_name or "Error"
    if not name.endswith(own_name):
        name, message = own_name, info.message.strip()
    return Error(clean(name), clean(message), clean("".join(info.stack)))
