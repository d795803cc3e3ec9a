"""Remove secrets from text before it is logged, stored or sent."""

from __future__ import annotations

import os
import re

from multitron_core.errors import InputError

REPLACEMENT = "***"
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|SAS|WEBHOOK|ALERT_URLS", re.IGNORECASE)
_PREFIXES = ("MULTITRON_", "AWS_", "AZURE_", "GOOGLE_")
_IN_URL = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", re.IGNORECASE)
_SIGNED = re.compile(
    r"(?P<name>[?&](?:X-Amz-(?:Signature|Credential|Security-Token)|sig|signature|token|AWSAccessKeyId)=)[^&\s'\"]+",
    re.IGNORECASE,
)
MIN_LENGTH = 6
"""Shorter values are not treated as secrets: replacing every `1` would make messages unreadable."""


def secret_values() -> list[str]:
    """Secret values of the environment, the longest first.

    A value is secret if its variable belongs to this project or to an object store (prefix MULTITRON_, AWS_, AZURE_ or
    GOOGLE_), its name contains a word such as KEY, TOKEN or PASSWORD, and it has at least `MIN_LENGTH` characters. If a
    value lists addresses, each of them is secret too.
    """
    found: set[str] = set()
    for name, value in os.environ.items():
        if name.startswith(_PREFIXES) and _SECRET_NAME.search(name):
            found |= {value, *(word for word in value.split() if "://" in word)}
    return sorted((value for value in found if len(value) >= MIN_LENGTH), key=len, reverse=True)


def redacted(text: str) -> str:
    """Replace secrets in a text by `***`: values of the environment, credentials and signatures in addresses."""
    for value in secret_values():
        text = text.replace(value, REPLACEMENT)
    text = _IN_URL.sub(rf"\g<scheme>{REPLACEMENT}@", text)
    return _SIGNED.sub(rf"\g<name>{REPLACEMENT}", text)


def without_credentials(address: str) -> str:
    """Check that an address contains no secret, so that it can be stored in settings, metadata and logs.

    Returns:
        The address, unchanged.

    Raises:
        InputError: It contains a user name and password, a signature, or a secret of the environment.
    """
    if redacted(address) != address:
        raise InputError(
            "an address in the settings contains credentials",
            found=redacted(address),
            hint="pass them in the environment: MULTITRON_STORAGE_<option> or the object store's own variables",
        )
    return address
