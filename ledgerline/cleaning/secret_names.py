"""Recognises the names of secrets, such as `aws_secret_access_key` and `apiKey`, but not `max_tokens`.

secret_forms.py finds secrets without a name.
"""

import re
from functools import lru_cache
from itertools import pairwise

# A name is split into words: `clientSecret`, `CLIENT_SECRET` and `client-secret` have the same two words.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SECRET = _words_of(
    """password passwords passwd pwd passphrase passphrases passcode passwort kennwort secret secrets
    credential credentials creds apikey apikeys authorization bearer cookie cookies dsn jwt sas auth
    auths otp totp"""
)
# These words mean a secret in any text. Other words also occur in ordinary messages: `unexpected token: x`.
_STRONG = _words_of("password passwords passwd pwd passphrase passcode passwort kennwort apikey")
_TOKEN = _words_of("token tokens")

# Two words in a row that mean a secret together.
_KEY = _words_of("key keys")
_OF_KEYS = _words_of(
    """access account api application app auth deploy encryption license master private secret service shared
    signing ssh storage webhook"""
)
_OF_PASS = _words_of("admin auth db database email ftp imap login mail mysql pg redis root smtp user")
_PAIRS = frozenset(
    {("connection", "string"), ("connection", "strings"), ("conn", "str"), ("conn", "string")}
    | {("shared", "signature"), ("access", "signature"), ("amz", "signature"), ("goog", "signature")}
    | {("amz", "credential"), ("goog", "credential"), ("recovery", "codes"), ("seed", "phrase")}
)

# Several words that are written as one word.
_GLUED = re.compile(
    r"passw(?:or)?d|passphrase|passwort|kennwort"
    r"|(?:api|access|account|private|secret|shared|signing|encryption|master)keys?$"
    r"|(?:access|api|auth|bearer|id|refresh|session|security|sas|hf|gh|git)tokens?$"
    r"|(?:client|app|api|user|shared|webhook|my)secrets?$|^(?:db|pg|user)pass$|connectionstring|connstr"
)

# Words after the name of a secret that change its meaning: `token_limit`, `password_file`, `AuthError`.
_ABOUT = _words_of(
    """age algorithm backend class count days denied enabled endpoint error errors exception exceptions
    expired expires expiry failed failure file files generator handler hours length limit mechanism method
    middleware minutes mode path policy provider required rotation scope scopes seconds size status
    ttl type uri url username validator version warning"""
)
# Tokens of language models and parsers: `max_tokens`, `pad_token`.
_OF_TEXT = _words_of(
    """added avg bos cached cls completion context count end eos estimated extra first generated image input
    last mask max mean min n new next nb num number output pad per previous prompt reasoning sep special start
    stop thinking total unk used vocab"""
)

_MAX_NAME = 200  # characters; a longer text is not a name


@lru_cache(maxsize=8192)
def is_secret_name(name: str) -> bool:
    """Return whether a value with this name is a secret. Of a dotted name, one part is enough."""
    return any(_is_secret(_words(part)) for part in name[-_MAX_NAME:].split("."))


@lru_cache(maxsize=8192)
def is_strong_name(name: str) -> bool:
    """Return whether the name means a secret in any text, and does not occur in ordinary messages."""
    words = _words(name[-_MAX_NAME:].rpartition(".")[2])
    return any(word in _STRONG or _GLUED.search(word) for word in words) or len(words) > 1


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _is_secret(words: list[str]) -> bool:
    while words and words[-1].isdecimal():  # `password2`
        words = words[:-1]
    if not words or words[-1] in _ABOUT:
        return False
    if words[-1] == "pass":
        return len(words) == 1 or words[-2] in _OF_PASS
    # Words after "token" usually describe something about it: `token_url`, `tokens_per_second`.
    if words[-1] in _TOKEN and not _OF_TEXT.intersection(words):
        return True
    return any(word in _SECRET or _GLUED.search(word) for word in words) or any(
        pair in _PAIRS or (pair[0] in _OF_KEYS and pair[1] in _KEY) for pair in pairwise(words)
    )
