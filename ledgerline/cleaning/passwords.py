"""Removes the passwords of URIs from texts. The other modules of this package remove other secrets."""

from urllib.parse import urlsplit


def without_password(uri: str) -> str:
    """Return the URI in a form that logs and errors may contain."""
    return without_password_in(uri, uri)


def without_password_in(text: str, uri: str) -> str:
    """Return a text without the password of this URI, because libraries repeat URIs in their errors."""
    try:
        login, at, _ = urlsplit(uri).netloc.rpartition("@")
    except ValueError:
        # The URI is not valid, for example because of an unclosed bracket. No password follows the last @.
        return text.replace(uri, uri.rpartition("@")[2])
    _, colon, password = login.partition(":")
    return text.replace(f":{password}@", ":***@") if at and colon else text


def address_alone(url: str) -> str:
    """Return a URL without its login, query and fragment, which may contain a token."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
