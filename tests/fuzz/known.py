"""What is known to fail and is mended elsewhere: family, kinds of change, and the words of the issue.

A change that is listed here may come to anything. Take a line out as soon as its readers are mended.
"""

KNOWN: list[tuple[str, str, str]] = []
