"""Hides the passwords of addresses in texts. Other secrets: secret_forms.py and its neighbours."""

from urllib.parse import urlsplit


def without_password(uri: str) -> str:
    """Return the URI as it may be shown in logs and errors."""
    return without_password_in(uri, uri)


def without_password_in(text: str, uri: str) -> str:
    """Return a text without the password of this URI: libraries repeat URIs in their errors."""
    try:
        login, at, _ = urlsplit(uri).netloc.rpartition("@")
    except ValueError:
        # The URI is not an address; an unclosed bracket is one example. No password follows the last @.
        return text.replace(uri, uri.rpartition("@")[2])
    _, colon, password = login.partition(":")
    return text.replace(f":{password}@", ":***@") if at and colon else text
