"""Credentials in commands and variables: what is masked by its name or its look, and what must stay readable."""

import pytest

from backprop.scheduler.home.credentials import masked_text, masked_value, masked_words

TOKEN = "hf_AbCdEfGhIjKlMnOpQrSt"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train.py", "--hub_token", "abc", "--lr", "1"], ["train.py", "--hub_token", "***", "--lr", "1"]),
        (["train.py", "--api-key=abc"], ["train.py", "--api-key=***"]),
        (["train.py", "trainer.auth_token=abc"], ["train.py", "trainer.auth_token=***"]),
        (["env", "WANDB_API_KEY=abc", "python"], ["env", "WANDB_API_KEY=***", "python"]),
        (["train.py", "--password", "--verbose"], ["train.py", "--password", "--verbose"]),
        (["train.py", "--login", TOKEN], ["train.py", "--login", "hf_***"]),
        (["train.py", f"--hub={TOKEN}"], ["train.py", "--hub=hf_***"]),
        (["train.py", "s3://ada:pw@host/x?a=b@c"], ["train.py", "s3://ada:***@host/x?a=b@c"]),
    ],
)
def test_what_looks_like_a_credential_is_masked(words: list[str], shown: list[str]) -> None:
    assert list(masked_words(words)) == shown


@pytest.mark.parametrize(
    "words",
    [
        ["--pad-token", "[PAD]", "--max-tokens=512", "--tokenizer", "gpt2", "--eos_token=</s>"],
        ["--key", "image", "--sort-key", "length", "--num-secrets-kept=3", "model.key_dim=64"],
        ["sk-learn", "hf_model", "--data", "https://host:8080/path@2", "AKIA", "--author", "ada"],
        ["--seed", "1", "LR=3", "KEY=3", "MONKEY=2"],
    ],
)
def test_what_merely_sounds_like_one_stays(words: list[str]) -> None:
    assert list(masked_words(words)) == words


@pytest.mark.parametrize(
    "value",
    [
        "sk-proj-abcdefghijklmnop",
        "ghp_0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "glpat-0123456789abcdef",
        TOKEN,
    ],
)
def test_known_prefixes_are_known_wherever_they_stand(value: str) -> None:
    shown = masked_text(f"login failed for {value}, retry")
    assert value not in shown
    assert value[-8:] not in shown
    assert shown.endswith("***, retry")


def test_variables_are_masked_by_name() -> None:
    for name in (
        "HF_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "DB_PASSWORD",
        "MYSECRETS",
        "PGPASSWORD",
    ):
        assert masked_value(name, "abc") == "***"
    for name in ("SEED", "TOKENIZERS_PARALLELISM", "lr", "key", "pad_token"):
        assert masked_value(name, "abc") == "abc"
    assert masked_value("HF_TOKEN", "") == ""
