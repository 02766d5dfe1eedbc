"""Secrets are normalised, or refused without being shown."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import (
    SecretError,
    forms,
    proxy_url,
    token,
    user_info,
)

WORD = "hf_Zq7bXc91LmNoPq"


@pytest.mark.parametrize(
    "given",
    [
        f"{WORD}\n",
        f"{WORD}\r\n",
        f'"{WORD}"',
        f"'{WORD}'\n",
        f"Bearer {WORD}",
        f"bearer  {WORD}\n",
        f'"Bearer {WORD}"',
        f"Authorization: Bearer {WORD}\r\n",
        f"\ufeff{WORD}",
        f"  \t{WORD} ",
    ],
)
def test_what_copying_adds_to_a_token_is_taken_off(given: str) -> None:
    assert token(given, "model_token") == WORD


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (f"{WORD}\nhf_second", "a line break"),
        (f"{WORD[:5]}\r\n{WORD[5:]}", "a line break"),
        (f"{WORD[:5]} {WORD[5:]}", "a blank"),
        (f"{WORD}\u200b", "not ASCII"),
        (f"\u201c{WORD}\u201d", "not ASCII"),
        (f"{WORD}\x00", "a control character"),
        (f"$ANSIBLE_VAULT;1.1;AES256\n3334{WORD}", "still encrypted"),
    ],
)
def test_what_no_token_has_is_named_and_not_shown(given: str, wrong: str) -> None:
    with pytest.raises(SecretError) as refused:
        token(given, "model_token")
    said = str(refused.value)
    assert "model_token" in said and wrong in said and not any(form in said for form in forms(WORD))


def test_no_token_is_none() -> None:
    assert [token(value, "model_token") for value in ("", "\n", "Bearer ", "''")] == [""] * 4


def test_a_secret_is_known_in_every_form_that_a_message_may_have() -> None:
    secret = 'pa"55/w@rd\n'
    known = forms(secret)
    for shown in (
        secret,
        secret.strip(),
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        quote(secret, safe=""),
        base64.b64encode(secret.encode()).decode(),
        base64.b64encode(secret.strip().encode()).decode().rstrip("="),
        secret.encode().hex(),
    ):
        assert shown in known, shown


@pytest.mark.parametrize(
    ("url", "info"),
    [
        ("http://user:word@host:3128", "user:word"),
        ("https://word@host/simple", "word"),
        ("http://user:w@rd@host", "user:w@rd"),
        ("http://user:wo/rd@host:3128", "user:wo/rd"),
        ("http://user:wo#rd@host", "user:wo#rd"),
        ("user:word@host:3128", "user:word"),
        ("https://host/@scope/name", ""),
        ("https://host:8443/a?b=c@d", ""),
    ],
)
def test_user_and_password_of_a_url_are_found(url: str, info: str) -> None:
    assert user_info(url) == info


@pytest.mark.parametrize("given", ["http://user:w%40rd@host:3128\n", '"http://user:w%40rd@host:3128"'])
def test_what_copying_adds_to_a_proxy_is_taken_off(given: str) -> None:
    assert proxy_url(given) == "http://user:w%40rd@host:3128"


@pytest.mark.parametrize(
    "given",
    [
        "user:pa55word@host:3128",
        "http://user:pa55word/x@host:3128",
        "http://user:pa55#word@host:3128",
        "http://user:pa55word@host:31280000",
        "http://user:pa55 word@host:3128",
        "http://user:pa55word@",
        "socks5://user:pa55word@host:1080",
    ],
)
def test_what_is_no_proxy_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(SecretError) as refused:
        proxy_url(given)
    assert "xpu_proxy" in str(refused.value) and "pa55" not in str(refused.value)


def test_a_password_with_an_at_sign_is_hidden_whole() -> None:
    assert hide_password("at http://user:w@rd@host/x and https://host/y") == "at http://***@host/x and https://host/y"
