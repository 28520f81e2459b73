"""Numbers in sentences."""


def amount(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun, perhaps with a verb; ``many`` is ``one`` with an s where it is not given.

    >>> amount(1, "face"), amount(0, "face"), amount(1200, "box is", "boxes are")
    ('1 face', '0 faces', '1,200 boxes are')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
