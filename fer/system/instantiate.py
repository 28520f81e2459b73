"""The one call of Hydra's instantiate."""

from collections.abc import Mapping
from typing import Any

import hydra


def build(config: Mapping[str, Any], **given: Any) -> Any:
    """Build the object that a checked ``_target_`` config describes."""
    return hydra.utils.instantiate(config, **given)
