KNOWN: list[tuple[str, str, str]] = []
