"""Secrets: which names tell of one, and texts without them."""

from __future__ import annotations

import pytest

from mvc_callbacks import tree
from mvc_callbacks.masking import MASK, looks_secret, masked, without_credentials, without_secrets, words

_SECRET = words(
    "password passwd token api_key apikey secret credential private_key access_key auth hf_token "
    "HF_TOKEN hfToken dbPassword db_password WANDB_API_KEY client_secret "
    "aws_secret_access_key authToken smtp_pass --token apiKey APIKey token2 my.password githubtoken "
    "refresh_token api_tokens openai_key signing-key"
)
_NO_SECRET = words(
    "tokenizer num_tokens max_tokens author key_dim secretary authors authentic key keys pad_token eos_token "
    "mask_token token_type token_embedding tokens password_length token_file lr passes forward_pass n_keys "
    "key_value keyboard num_key_value_heads monkey token_dropout secretariat passthrough query_key_value "
    "public_key bypass compass"
)


@pytest.mark.parametrize("name", sorted(_SECRET))
def test_a_telling_name_is_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", sorted(_NO_SECRET))
def test_a_harmless_name_is_not_taken_for_a_secret(name: str) -> None:
    assert not looks_secret(name)


def test_only_texts_are_masked() -> None:
    assert masked("token", "token", "abc")
    assert masked("token", "token", b"abc")
    assert masked("api_keys", "api_keys", ["a", "b"])
    assert masked("secrets.user", "user", "abc")
    assert masked("db", "db", "postgres://u:p@host/db")
    assert masked("db", "db", ["postgres://u:p@host/db"])
    for harmless in (5, 0.1, True, None, "", [], [1, 2], {"a": 1}):
        assert not masked("token", "token", harmless)
    assert not masked("tokens", "tokens", ["hello", "world"])
    assert not masked("url", "url", "https://host/path?page=2")


def test_a_tree_holds_no_secret() -> None:
    value = {
        "hub": {"token": "hf_abc", "credentials": {"user": "me", "more": ["a"]}},
        "pad_token": "<pad>",
        "lr": 0.1,
    }
    told = tree.encode(value, is_tensor=lambda _: False, masked=masked)
    text = str(told.json)
    assert "hf_abc" not in text and "'me'" not in text
    assert tree.decode(told.json)["pad_token"] == "<pad>"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://user:pass@host/x.git", f"https://{MASK}@host/x.git"),
        ("https://ghp_abcdef@github.com/o/r", f"https://{MASK}@github.com/o/r"),
        ("postgres://u:p@ss@h/db", f"postgres://{MASK}@h/db"),
        ("ssh://git@host/x.git", "ssh://git@host/x.git"),
        ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        ("mvc:///data/a@baseline/3", "mvc:///data/a@baseline/3"),
        ("s3://b/k?X-Amz-Signature=abc&part=2", f"s3://b/k?X-Amz-Signature={MASK}&part=2"),
        ("https://h/p?api_key=abc#x", f"https://h/p?api_key={MASK}#x"),
        ("no url at all: me@example.org", "no url at all: me@example.org"),
    ],
)
def test_urls_lose_their_credentials(text: str, clean: str) -> None:
    assert without_credentials(text) == clean


def test_a_command_line_loses_its_secrets_and_nothing_else() -> None:
    told = without_secrets(
        [
            "train.py",
            "--token=a",
            "--token",
            "b",
            "--lr",
            "0.1",
            "model.api_key=c",
            "+hub.hf_token=d",
            "--password",
            "--tokenizer",
            "bert",
            "--url=http://u:p@h",
            "-H",
            "Authorization: Bearer abcdefghijk",
            "--max_tokens=5",
        ]
    )
    assert told == (
        [
            "train.py",
            f"--token={MASK}",
            "--token",
            MASK,
            "--lr",
            "0.1",
            f"model.api_key={MASK}",
            f"+hub.hf_token={MASK}",
            "--password",
            "--tokenizer",
            "bert",
            f"--url=http://{MASK}@h",
            "-H",
            f"Authorization: Bearer {MASK}",
            "--max_tokens=5",
        ]
    )


def test_a_command_line_that_is_no_utf8_can_be_written() -> None:
    assert without_secrets(["\udcff"]) == ["\\udcff"]
    assert words("a b a") == {"a", "b"}
