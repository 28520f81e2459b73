"""All families."""

from tests.fuzz import configs, darknet, fer2013, h5, networks, photos, reports, resuming, shards

_MODULES = (fer2013, photos, h5, shards, networks, resuming, reports, darknet, configs)
FAMILIES = [family for module in _MODULES for family in module.FAMILIES]
