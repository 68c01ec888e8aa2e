"""Finds secrets in a text by their form: logins in URLs, headers, SQL, private keys, well-known tokens.

secret_pairs.py finds secrets by the name beside them, and texts.py cleans whole texts.

The time is linear in the length of the text: each form begins at the beginning of a word, and its length is
limited, or the match is replaced and not read again.
"""

import re

from ledgerline.cleaning.secret_names import is_secret_name

REDACTED = "[redacted]"

QUOTE = r"\\{0,7}[\"'`]"
_SCHEME = r"(?<![\w+.-])[a-z][a-z0-9+.-]{0,30}"
_AUTHENTICATION = (
    r"bearer|basic|token|apikey|api-key|digest|negotiate|ntlm|hawk|oauth|aws4-hmac-sha256|signature|key"
)
_KEY_BLOCK = r"-----{} [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----"

# The group `keep` remains in the text, and the rest of the match is replaced.
_FORMS = [
    re.compile(
        rf"(?P<keep>){_KEY_BLOCK.format('BEGIN')}.*?(?:{_KEY_BLOCK.format('END')}|\Z)",
        re.DOTALL,
    ),
    # A login in a URL extends to the last @ before the first slash. A password may contain slashes, too, but
    # digits that look like a port before a path are read as a port.
    re.compile(
        rf"(?P<keep>{_SCHEME}:\\?/\\?/[^\s/@:\"<>]{{0,200}}:)(?!\*+@)"
        r"(?:[^\s/?#\"<>]{1,500}(?=@)|(?!\d{1,5}[/?#])[^\s\"<>@]{1,500}(?=@))",
        re.IGNORECASE,
    ),
    re.compile(rf"(?P<keep>{_SCHEME}%3a%2f%2f[\w.~-]{{0,200}}%3a)[^\s&\"]{{1,500}}?(?=%40)", re.IGNORECASE),
    # A token in place of the user; the name of a user is not a secret.
    re.compile(
        rf"(?P<keep>{_SCHEME}://)(?=[^\s/@]{{0,200}}?\d)[\w%.~-]{{20,500}}(?=@)",
        re.IGNORECASE,
    ),
    re.compile(r"(?P<keep>(?<![\w.@:/-])[\w.-]{1,64}:)[^\s:@/\"'<>]{3,100}(?=@[\w.-]{1,200}:\d{2,5}\b)"),
    re.compile(
        r"(?P<keep>[?&;](?:sig|signature|hmac|x-(?:amz|goog)-(?:signature|credential|security-token))=)"
        r"[^\s&\"'<>#]{1,2000}",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<keep>\b(?:hooks\.slack\.com/(?:services|workflows|triggers)/"
        r"|discord(?:app)?\.com/api/webhooks/|webhook\.office\.com/))[\w/@-]{8,500}",
        re.IGNORECASE,
    ),
    # Headers, also in the form of byte pairs that HTTP libraries log.
    re.compile(
        rf"(?P<keep>\b(?:proxy-)?authorization(?:{QUOTE})?\s{{0,3}}[:=,]\s{{0,3}}(?:b?{QUOTE})?"
        rf"(?:{_AUTHENTICATION})\s{{1,3}})(?!\[redacted\])[^\"'`\r\n\\<>]{{1,8000}}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?P<keep>\b(?:set-)?cookie(?:{QUOTE})?\s{{0,3}}[:,]\s{{0,3}}(?:b?{QUOTE})?)"
        r"(?=[\w.-]{1,100}=)[^\"'`\r\n\\]{1,8000}",
        re.IGNORECASE,
    ),
    # Without the name of a header, an ordinary word may follow the scheme: "bearer authentication".
    re.compile(
        r"(?P<keep>\b(?i:bearer)\s{1,3})(?=[A-Za-z._~+/-]{0,200}[0-9=]|[A-Za-z]{0,200}[a-z][A-Z])"
        r"[\w.~+/=-]{6,8000}"
    ),
    re.compile(r"(?P<keep>\b(?i:basic)\s{1,3})(?=[a-z]{0,200}[A-Z0-9+/=])[A-Za-z0-9+/=]{8,2000}"),
    # Command lines and .netrc
    re.compile(r"(?P<keep>(?<!\S)(?:-u|--user|--proxy-user)[ =][^\s:\"']{1,100}:)[^\s\"']{1,200}"),
    re.compile(r"(?P<keep>\blogin\s{1,5}\S{1,100}\s{1,5}password\s{1,5})\S{1,200}", re.IGNORECASE),
    # SQL
    re.compile(
        r"(?P<keep>\b(?:(?:password|passwd|secret_key|secret_access_key|api_key|access_key)(?:\s{1,5}|\s{0,5}\(\s{0,5})"
        r"|identified\s{1,5}(?:with\s{1,5}[\w'\"]{1,60}\s{1,5})?(?:by|as)\s{1,5}(?:password\s{1,5}|values\s{1,5})?"
        r"|password\s{1,5}for\s{1,5}\S{1,100}\s{0,5}=\s{0,5}(?:password\()?"
        r"|(?-i:SECRET|TOKEN|CREDENTIALS)\s{1,5})N?')(?:[^']|''){1,2000}(?=')",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<keep>\bidentified\s{1,5}by\s{1,5})(?!values\b|password\b|['\"\[])[^\s;,'\"]{1,200}",
        re.IGNORECASE,
    ),
    # Keys and tokens whose form a provider defines
    re.compile(
        r"(?P<keep>)(?<![A-Za-z0-9_-])(?:"
        r"(?:sk|pk|rk)[-_](?=[A-Za-z_-]{0,200}\d)[A-Za-z0-9_-]{16,}"
        r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|gl(?:pat|dt|rt|ptt|cbt|soat)-[\w.-]{16,}"
        r"|hf_[A-Za-z0-9]{16,}|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}"
        r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{50,}|dckr_pat_[\w-]{20,}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"
        r"|SG\.[\w-]{16,64}\.[\w-]{16,64}|do[op]_v1_[a-f0-9]{40,}|dapi[a-f0-9]{32}|gsk_\w{20,}"
        r"|nvapi-[\w-]{20,}|r8_\w{30,}|hv[sb]\.[\w-]{20,}|glsa_\w{20,}"
        r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"
        r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?|\d{8,10}:AA[\w-]{32,34})"
    ),
]
_XML = re.compile(r"(?P<start><(?P<name>[\w:.-]{1,100})(?:\s[^<>]{0,500})?>)(?P<value>[^<>]{1,8000})(?=</)")


def without_forms(text: str) -> str:
    """Return the text with `[redacted]` in place of each secret that is found by its form."""
    for form in _FORMS:
        text = form.sub(_redacted, text)
    return _XML.sub(_redacted_element, text) if "</" in text else text


def _redacted(match: re.Match[str]) -> str:
    return match["keep"] + REDACTED


def _redacted_element(match: re.Match[str]) -> str:
    name = match["name"].rpartition(":")[2]
    if not is_secret_name(name) or not match["value"].strip():
        return match[0]
    return match["start"] + REDACTED
