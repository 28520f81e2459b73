"""What is known to fail and is mended elsewhere: family, kinds of change, and the words of the issue.

A change that is listed here may come to anything. Take a line out as soon as its readers are mended.
"""

_CSV = "read where the meaning is certain, else one line that names the row and the reason"

KNOWN: list[tuple[str, str, str]] = [
    ("FER2013 csv", "table: *, field", _CSV),
    ("FER+ votes", "*", _CSV),
    ("AffectNet npy", "*", "one bad .npy header must not end an AffectNet preparation"),
    ("table of photos", "*", "anything that looks like a box and is not read is refused"),
]
