from __future__ import annotations

import pytest

from aksgpu.jobs.call_parameters import SECRET_NAME, hide_secrets


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--token", "abc", "--lr", "3"], ["--token", "***", "--lr", "3"]),
        (["--hf-token=abc", "--max-tokens", "5"], ["--hf-token=***", "--max-tokens", "5"]),
        (["--use-auth-token", "--lr", "1"], ["--use-auth-token", "--lr", "1"]),
        (["--key"], ["--key"]),
        (["sh", "-c", "run --token abc; echo done"], ["sh", "-c", "run --token ***; echo done"]),
        (["sh", "-c", "--verbose --token abc"], ["sh", "-c", "--verbose --token ***"]),
        (["sh", "-c", "A=1 HF_TOKEN='a b' python t.py"], ["sh", "-c", "A=1 HF_TOKEN=*** python t.py"]),
        (["sh", "-c", 'python t.py --api-key "a b" --lr 3'], ["sh", "-c", "python t.py --api-key *** --lr 3"]),
        (["python", "-c", "print(key==3)"], ["python", "-c", "print(key==3)"]),
    ],
)
def test_values_that_are_named_like_a_secret_are_hidden(words: list[str], shown: list[str]) -> None:
    assert hide_secrets(words) == shown


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "hftoken", "api_key", "apiKey", "OPENAI_API_KEY", "auth", "AUTHORIZATION", "password", "PASSWD"],
)
def test_names_of_secrets(name: str) -> None:
    assert SECRET_NAME.search(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "author", "monkey", "keyboard", "lr", "passes"])
def test_names_of_hyperparameters(name: str) -> None:
    assert not SECRET_NAME.search(name)
