"""Computes digests of data frames and of several partitions. table_digests.py has those of Arrow tables."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def frame_sha256(frame: "pd.DataFrame") -> str:
    """Return the digest of the names, types and values of a data frame of text, numbers and times."""
    import pandas as pd

    digest = hashlib.sha256()
    for name, dtype in frame.dtypes.items():
        digest.update(f"{name}:{dtype}\n".encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def combined_sha256(digests: Mapping[str, str]) -> str:
    """Return one digest for several partitions; the digest of a single partition is unchanged."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{key} {digest}\n" for key, digest in digests.items())
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()
