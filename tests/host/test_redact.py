import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.host.redact import escape_terminal, redact, redact_env


@pytest.mark.parametrize(
    "text",
    [
        "https://user:HIDDEN@host.x/path",
        "postgres://HIDDEN@host:5432/db?sslmode=off",
        "GET /v1?api_key=HIDDEN&page=2",
        "https://h.x/a?X-Amz-Signature=HIDDEN&b=1",
        "Authorization: Bearer HIDDEN",
        "authorization: Basic HIDDEN==",
        "curl -H 'Authorization: Token HIDDEN'",
        "sent bearer HIDDEN123 to it",
        "export AWS_SECRET_ACCESS_KEY=HIDDEN/x+y",
        '{"password": "HIDDEN two words HIDDEN"}',
        "{'db.password': 'HIDDEN'}",
        "--password HIDDEN --port 80",
        "--api-key=HIDDEN",
        "githubToken=HIDDEN",
        "passwd : HIDDEN",
        "Set-Cookie: id=HIDDEN; path=/HIDDEN",
        "using sk-HIDDENabcdefghijkl today",
        "ghp_HIDDENabcdefghijklmnop",
        "-----BEGIN RSA PRIVATE KEY-----\nHIDDEN\nHIDDEN==\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_secrets_go(text: str) -> None:
    assert "HIDDEN" not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "tokens=12 max_tokens: 5",
        "monkey=1 author=Jo keyboard: us",
        "http://127.0.0.1:8000/v2/health?verbose=1",
        "loaded model.onnx in 0.3 s; mail me@host.x",
        "password=",
        "secret: None",
        "Traceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'x'",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert redact(text) == text


def test_only_the_secret_goes() -> None:
    assert redact("a=1 key=2 b=3") == "a=1 key=[redacted] b=3"
    assert redact("https://u:p@h/x?token=t&n=1") == "https://[redacted]@h/x?token=[redacted]&n=1"
    assert redact('{"api_key": "a b", "n": 1}') == '{"api_key": "[redacted]", "n": 1}'


def test_environment() -> None:
    got = redact_env(
        {"PATH": "/bin", "PWD": "/x", "MY_TOKEN": "t", "DB_URL": "pg://a:b@h/d", "EMPTY_KEY": "", "AUTH": "x"}
    )
    assert got == {
        "PATH": "/bin",
        "PWD": "/x",
        "MY_TOKEN": "[redacted]",
        "DB_URL": "pg://[redacted]@h/d",
        "EMPTY_KEY": "",
        "AUTH": "[redacted]",
    }


@pytest.mark.parametrize(
    "hostile, shown",
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jx", "x"),
        ("10 %\r99 %", "10 %\\x0d99 %"),
        ("line\r\nnext\tcell", "line\nnext\tcell"),
        ("a\x1bb\x00\x08", "a\\x1bb\\x00\\x08"),
        ("abc\u202edef", "abc\\u202edef"),
        ("\ud800", "\\ud800"),
        ("Größe 大きさ 🙂", "Größe 大きさ 🙂"),
        ("\x1b[", ""),
        ("before\x1b]never ends\nafter", "before\nafter"),
    ],
)
def test_escapes(hostile: str, shown: str) -> None:
    assert escape_terminal(hostile) == shown


_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@given(st.text(st.sampled_from("\x1b[]();?0123456789mJ\x07\\\r\n\x9b\x9c\u202eaé") | st.characters(), max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_control_character_survives(text: str) -> None:
    shown = escape_terminal(text)
    assert not _FORBIDDEN.search(shown)
    assert escape_terminal(shown) == shown
    shown.encode()  # no lone surrogates


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_redaction_is_stable(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "piece",
    ["a", "key=", "://", "://a@", "@", "a.", "a-b_", '"', "'key'", "\x1b[", "\x1b]", "\x9b0;", "eyJa.", "bearer ",
     "-----BEGIN PRIVATE KEY-----", "--key ", " ", "=:", "key: '", "sk-", "-"],
    ids=repr,
)  # fmt: skip
def test_time_grows_linearly(piece: str) -> None:
    def cpu_s(n: int) -> float:
        text = piece * (n // len(piece))
        begin = time.process_time()
        redact(escape_terminal(text))
        return time.process_time() - begin

    small = min(cpu_s(10_000) for _ in range(3))
    # ten times the text: a quadratic pattern would take a hundred times as long
    assert min(cpu_s(100_000) for _ in range(2)) < 35 * small + 0.02
