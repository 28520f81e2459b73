"""Cells of one line of a csv: a row is one line, so a quote that stays open costs its own row and none below it."""

import csv
import re

#: A longer line is no row of a table of photos or votes.
MOST_CHARACTERS = 100_000

# Blanks between a closing quote and what follows; two quotes are one within a cell.
_BLANKS_AFTER_QUOTE = re.compile(r'(?<!")" +(?=[,;\t]|$)')


def split_line(line: str, delimiter: str = ",", most: int = MOST_CHARACTERS) -> list[str]:
    """Return the cells of a line, without blanks around them; none of a blank line.

    >>> split_line('"a, b.png", happy'), split_line("")
    (['a, b.png', 'happy'], [])

    Raises:
        ValueError: the line is longer than ``most`` characters, or its quotes leave open what its cells are. The
            message is a short reason without the line.
    """
    if len(line) > most:
        raise ValueError(f"a line of more than {most:,} characters")
    # the csv module's own limit is 128 KiB a cell
    csv.field_size_limit(max(csv.field_size_limit(), most))
    text = _BLANKS_AFTER_QUOTE.sub('"', line.rstrip("\r\n"))
    try:
        cells = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True), [])
    except csv.Error as error:  # or a line break within the line
        raise ValueError("a quote that is not closed, or a line break in a cell") from error
    return [cell.strip() for cell in cells]


def delimiter_of(header: str) -> str:
    """Return what stands between the cells of a header line: a comma, else a semicolon, else a tab.

    >>> delimiter_of("a;b"), delimiter_of("a,b;c"), delimiter_of("a")
    (';', ',', ',')
    """
    return next((mark for mark in ",;\t" if mark in header), ",")
