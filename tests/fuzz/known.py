"""What is known to fail and is mended elsewhere: family, kinds of change, and the words of the issue.

A change that is listed here may come to anything. Take a line out as soon as its readers are mended.
"""

_NETWORKS = "weights that are NaN or infinite are refused; metadata and shapes are checked at opening"
_CONFIG = "one line that names the key and the remedy"

KNOWN: list[tuple[str, str, str]] = [
    ("checkpoint", "*", "hyperparameters validated as .safetensors headers are; CRCs of the zip checked"),
    ("onnx", "*", _NETWORKS),
    ("report.json", "plain*: replaced", "its count and its confusion may disagree"),
    ("config values", "optimizer: replaced", "optimizer.lr=null is left to torch"),
    ("overrides", "*", _CONFIG),
    ("YAML", "*", _CONFIG),
]
