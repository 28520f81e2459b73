"""What is known to fail and is mended elsewhere: family, kinds of change, and the words of the issue.

A change that is listed here may come to anything. Take a line out as soon as its readers are mended.
"""

_H5 = "on opening, everything is checked that the schema says; virtual, external and soft-linked data sets are refused"
_CSV = "read where the meaning is certain, else one line that names the row and the reason"
_NETWORKS = "weights that are NaN or infinite are refused; metadata and shapes are checked at opening"
_CONFIG = "one line that names the key and the remedy"

KNOWN: list[tuple[str, str, str]] = [
    ("FER2013 csv", "table: *, field", _CSV),
    ("FER+ votes", "*", _CSV),
    ("original data.h5", "*", _H5),
    ("AffectNet csv", "*", "valence of inf: skipped and listed"),
    ("AffectNet npy", "*", "one bad .npy header must not end an AffectNet preparation"),
    ("table of photos", "*", "anything that looks like a box and is not read is refused"),
    ("prepared h5", "*", _H5),
    ("LitData shards", "rows, *", _H5),
    ("checkpoint", "*", "hyperparameters validated as .safetensors headers are; CRCs of the zip checked"),
    ("safetensors", "*", _NETWORKS),
    ("onnx", "*", _NETWORKS),
    ("report.json", "*", "rows.csv, report.json, votes, litdata index: same rule"),
    ("Darknet labels", "*", "NaN, pixel units, centre or size out of (0, 1], zero sizes are refused"),
    ("Darknet list", "*", "BOM in a cfg or list is read"),
    ("config values", "*", _CONFIG),
    ("overrides", "*", _CONFIG),
    ("YAML", "*", _CONFIG),
]
