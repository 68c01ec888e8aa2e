"""Converts partition and asset keys to unique file names, and back.

A key of letters, digits and most punctuation is its own file name. Characters with a meaning for file systems
become `~` and two hexadecimal digits for each byte: the key `a/x` has the name `a~2Fx`. A name that is too
long for a file system is shortened, and ends in `~~` and the SHA-256 of the key. Such a file contains its
key.
"""

import hashlib
import re

# Most file systems allow 255 bytes, including the longest extension, `.parquet`.
MAX_NAME_BYTES = 255 - len(".parquet")

# The name of the file of an asset without partitions whose key has several parts. Its folder might also
# contain partitions, and no key has this name.
WHOLE = "~whole"

# Path separators, control characters, lone surrogates, the escape character, and the version character of S3.
# A leading dot hides a file (or names the parent folder), and Windows removes trailing dots and spaces.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\~?\ud800-\udfff]|^\.|[. ]\Z")
_RESERVED_ON_WINDOWS = re.compile(r"^(?=(?:CON|PRN|AUX|NUL|COM\d|LPT\d)(?:\.|\Z)).", re.IGNORECASE)
_ESCAPED = re.compile(r"(?:~[0-9A-F]{2})+")
_DIGEST = re.compile(r"~~[0-9a-f]{64}\Z")
_EXTENSION = re.compile(r"\.(?=(?:parquet|json)\Z)", re.IGNORECASE)
_EMPTY = "~"


def name_of(key: str) -> str:
    """Return the unique file name of a key, without extension."""
    if not key:
        return _EMPTY
    name = _RESERVED_ON_WINDOWS.sub(_escape, _UNSAFE.sub(_escape, key))
    encoded = name.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    digest = f"~~{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
    start = encoded[: MAX_NAME_BYTES - len(digest)].decode(errors="ignore")
    return start + digest


def key_of(name: str) -> str | None:
    """Return the key of a file name; None if the name has only a hash of the key, or was not made here."""
    if name == _EMPTY:
        return ""
    try:
        key = _ESCAPED.sub(_unescape, name)
    except UnicodeDecodeError:
        return None
    return key if key and name_of(key) == name else None


def is_shortened(name: str) -> bool:
    """Return whether a name is shortened, so that only the file contains the key."""
    return _DIGEST.search(name) is not None


def folder_of(part: str) -> str:
    """Return the folder name of a part of an asset key; it never equals the name of a file."""
    return _EXTENSION.sub(_escape, name_of(part))


def _escape(match: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("~", "")).decode("utf-8", "surrogatepass")
