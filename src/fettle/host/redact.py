"""Makes text from outside fit to be kept and shown: without secrets, without control sequences.

Every pattern is linear: no two neighbouring repetitions can match the same characters.
"""

import re
from collections.abc import Mapping

_GONE = "[redacted]"
_WORDS = (
    "KEY TOKEN SECRET PASSWORD PASSWD PASSPHRASE PWD CREDENTIAL CREDENTIALS AUTH AUTHORIZATION SIGNATURE COOKIE DSN"
)
_SECRET_WORDS = frozenset(_WORDS.split())
# whole words of a name, so that neither MONKEY nor AUTHOR counts, but also run-together ones such as GITHUBTOKEN
_WORD = re.compile(r"[A-Z]+[a-z]*|[a-z]+")
_ENDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "APIKEY", "PASSPHRASE")
_HARMLESS = ("PWD", "OLDPWD", "SSH_AUTH_SOCK", "GPG_AGENT_INFO")

# a name that is given a value: NAME=, "name": , --name VALUE
_NAME = re.compile(
    r"""(?<![\w.])(?<!\w-)(?P<dashes>--)?(?P<name>[A-Za-z_][\w.-]{0,127})"""
    r"""(?:["']?[ \t]{0,4}[=:][ \t]{0,4}|(?P<blank>[ \t]{1,4}))"""
)
_VALUE = re.compile(r"""(?P<quote>["'])?(?(quote)[^"'\n]*|[^\s"'&;,]+)""")
_REST = re.compile(r"""["']?[^"'\n]+""")  # a header's value is the rest of its line
_USER_INFO = re.compile(r"(?<=://)[^\s/?#@]*@(?:[^\s/?#@]*@)*")
_SCHEME = re.compile(r"\b(bearer|basic|digest|token)[ \t]{1,8}(?=[\w.~+/=-]{8})[\w.~+/=-]+", re.IGNORECASE)
_KNOWN = re.compile(
    r"\b(?:(?:sk|pk|rk)[-_][\w-]{12,}|(?:ghp|gho|ghu|ghs|ghr)_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{12,}"
    r"|hf_\w{16,}|xox[abprs]-[\w-]{8,}|AKIA[0-9A-Z]{12,}|AIza[\w-]{20,}|eyJ[\w-]{8,}(?:\.[\w-]+){1,2})"
)
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^-]*(-----END [A-Z ]{0,40}PRIVATE KEY-----)?")

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u200b-\u200d\u2028\u2029\u2060-\u2065\ufeff\ufff9-\ufffb"
_OSC = re.compile(r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x9c|\x1b\\)?")
_CSI = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?")
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}{_INVISIBLE}\ud800-\udfff\U000e0000-\U000e0fff]")


def redact(text: str) -> str:
    """Replaces passwords, tokens and keys in free text (log lines, command lines, URLs) by `[redacted]`."""
    text = _PEM.sub(rf"\1{_GONE}", text)
    text = _USER_INFO.sub(f"{_GONE}@", text)
    text = _SCHEME.sub(rf"\1 {_GONE}", text)
    return _KNOWN.sub(_GONE, _hide_values(text))


def redact_env(env: Mapping[str, str]) -> dict[str, str]:
    """Environment variables, fit to be stored: values of secret names are gone, secrets within others, too."""
    return {name: _GONE if value and _is_secret(name) else redact(value) for name, value in env.items()}


def escape_terminal(text: str) -> str:
    """Drops terminal sequences and shows other control characters as `\\x1b`, `\\u202e`; keeps newline and tab.

    Nothing is left that moves a cursor, rewrites a line, sets a title or turns the direction of writing.
    """
    text = _CSI.sub("", _OSC.sub("", text.replace("\r\n", "\n")))
    return _CONTROL.sub(_show, text)


def _is_secret(name: str) -> bool:
    if name in _HARMLESS or name.endswith(("Error", "Exception")):
        return False
    words = [word.upper() for part in re.split(r"[\W_]+", name) for word in (*_WORD.findall(part), part)]
    return any(word in _SECRET_WORDS or word.endswith(_ENDS) for word in words)


def _hide_values(text: str) -> str:
    parts, at = [], 0
    for found in _NAME.finditer(text):
        name = found["name"]
        if found.start() < at or (found["blank"] and not found["dashes"]) or not _is_secret(name):
            continue
        header = name.upper().endswith(("AUTHORIZATION", "COOKIE"))
        value = (_REST if header else _VALUE).match(text, found.end())
        if value is None or value[0].strip("\"'") in ("", "None", "null"):
            continue
        mark = value[0][0] if value[0][0] in "\"'" else ""
        parts += [text[at : found.end()], mark, _GONE]
        at = value.end()
    return "".join([*parts, text[at:]])


def _show(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
