"""File names of keys: one for each partition or asset key, and back. Which files exist is not known here.

A key of letters, digits and most signs is its own name. What a file system gives a meaning is written as
`~` and two hexadecimal digits for each byte: the key `a/x` is the name `a~2Fx`. A name too long for a file
system is cut, and ends in `~~` and the SHA-256 of the key; such a file says itself which key it has.
"""

import hashlib
import re

# Most file systems allow 255 bytes; the longest extension, `.parquet`, has its place in them.
MAX_NAME_BYTES = 255 - len(".parquet")

# A table or record without partitions whose asset key has several parts is kept in a folder of its own, where
# partitions might be, too. No key has this name.
WHOLE = "~whole"

# Separators of paths, characters that no terminal shows, halves of characters, the sign of an escape, and
# that of a version on S3; a dot at the front hides a file (or is the folder above), and Windows cuts dots and
# spaces off the end.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\~?\ud800-\udfff]|^\.|[. ]\Z")
_RESERVED_ON_WINDOWS = re.compile(r"^(?=(?:CON|PRN|AUX|NUL|COM\d|LPT\d)(?:\.|\Z)).", re.IGNORECASE)
_ESCAPED = re.compile(r"(?:~[0-9A-F]{2})+")
_DIGEST = re.compile(r"~~[0-9a-f]{64}\Z")
_EXTENSION = re.compile(r"\.(?=(?:parquet|json)\Z)", re.IGNORECASE)
_EMPTY = "~"


def name_of(key: str) -> str:
    """Return the file name, without extension, that a key has: no other key has it."""
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
    """Return the key that has a name; None if only the file can say, or no key has it."""
    if name == _EMPTY:
        return ""
    try:
        key = _ESCAPED.sub(_unescape, name)
    except UnicodeDecodeError:
        return None
    return key if key and name_of(key) == name else None


def is_shortened(name: str) -> bool:
    """Say whether a name is that of a key too long for a name: which, the file says."""
    return _DIGEST.search(name) is not None


def folder_of(part: str) -> str:
    """Return the folder name of a part of an asset key; no file of a table or record has it."""
    return _EXTENSION.sub(_escape, name_of(part))


def _escape(match: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("~", "")).decode("utf-8", "surrogatepass")
