"""Secrets stay where they are: in the environment. What is logged, stored or sent has them blacked out."""

from __future__ import annotations

import os
import re

from multitron_core.errors import InputError

BLACK = "***"
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|SAS|WEBHOOK|ALERT_URLS", re.IGNORECASE)
_OURS = ("MULTITRON_", "AWS_", "AZURE_", "GOOGLE_")
_IN_URL = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", re.IGNORECASE)
_SIGNED = re.compile(
    r"(?P<name>[?&](?:X-Amz-(?:Signature|Credential|Security-Token)|sig|signature|token|AWSAccessKeyId)=)[^&\s'\"]+",
    re.IGNORECASE,
)
MIN_LENGTH = 6
"""Shorter values are taken for no secrets: blacking out every `1` would make messages unreadable."""


def secret_values() -> list[str]:
    """The values of the environment that nobody may see, the longest first.

    Those are of variables of ours and of the object stores whose names say that they are secrets; where a value lists
    addresses, each of them too.
    """
    found: set[str] = set()
    for name, value in os.environ.items():
        if name.startswith(_OURS) and _SECRET_NAME.search(name):
            found |= {value, *(word for word in value.split() if "://" in word)}
    return sorted((value for value in found if len(value) >= MIN_LENGTH), key=len, reverse=True)


def redacted(text: str) -> str:
    """`text` without secrets: those of the environment, credentials and signatures within addresses."""
    for value in secret_values():
        text = text.replace(value, BLACK)
    text = _IN_URL.sub(rf"\g<scheme>{BLACK}@", text)
    return _SIGNED.sub(rf"\g<name>{BLACK}", text)


def without_credentials(address: str) -> str:
    """An address that may stand in settings, metadata and logs: as it is.

    Raises:
        InputError: it carries a name and password, or a signature.
    """
    if redacted(address) != address:
        raise InputError(
            "an address with credentials has no place in settings",
            found=redacted(address),
            hint="give them by the environment: MULTITRON_STORAGE_<option>, or what the object store's tools read",
        )
    return address
