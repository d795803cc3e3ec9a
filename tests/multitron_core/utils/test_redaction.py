"""Secrets of the environment and in addresses are replaced; other text is unchanged."""

from __future__ import annotations

import pytest

from multitron_core.errors import InputError
from multitron_core.utils.redaction import redacted, secret_values, without_credentials


def test_secret_values_are_sorted_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    before = secret_values()
    monkeypatch.setenv("MULTITRON_STORAGE_AWS_SECRET_ACCESS_KEY", "a-longer-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")  # not a secret by its name
    monkeypatch.setenv("AZURE_STORAGE_KEY", "short")  # too short to be replaced
    monkeypatch.setenv("OTHER_PASSWORD", "other-program")  # of another program
    assert [value for value in secret_values() if value not in before] == ["a-longer-secret", "a-secret"]


def test_redacted_replaces_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "abcdef")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abcdefghi")
    assert redacted("found abcdefghi and abcdef") == "found *** and ***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at https://user:password@host/path", "at https://***@host/path"),
        ("at s3://bucket/key?X-Amz-Signature=0a1b&x=1", "at s3://bucket/key?X-Amz-Signature=***&x=1"),
        ("at https://host/blob?sv=1&sig=0a1b", "at https://host/blob?sv=1&sig=***"),
        ("mail crm@example.com about s3://bucket/key", "mail crm@example.com about s3://bucket/key"),
    ],
)
def test_redacted_replaces_credentials_in_addresses(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_without_credentials_refuses_a_password() -> None:
    assert without_credentials("s3://bucket/prefix") == "s3://bucket/prefix"
    with pytest.raises(InputError, match=r"contains credentials.*\*\*\*@host.*MULTITRON_STORAGE_") as refusal:
        without_credentials("https://user:password@host/path")
    assert "password" not in str(refusal.value)
