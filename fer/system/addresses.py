"""Addresses with a user's name and password in them, as they may be written down."""

import re
from typing import Any


def without_password(text: str) -> str:
    """Return a text whose addresses lack the user's name and password.

    >>> without_password("data.shards=s3://me:p@ss@host/a"), without_password("me@host")
    ('data.shards=s3://host/a', 'me@host')
    """
    return re.sub(r"://[^/\s]*@", "://", text)


def without_passwords(value: Any) -> Any:
    """Return plain data with `without_password` of every text in it."""
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, dict):
        return {key: without_passwords(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_passwords(inner) for inner in value]
    return value
