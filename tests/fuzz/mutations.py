"""What can happen to a file: bytes, fields, lines and values that hypothesis changes, each change with its name."""

import copy
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

#: What stands where a number or a name should: empty, not finite, out of range, too long, foreign digits, no text.
HOSTILE = (
    "", " ", "0", "1", "7", "8", "-1", "1.0", "1.5", "0.5", "255", "256", "1e3", "1e999", "-1e999", "nan", "inf",
    "-inf", "NULL", "None", "true", "[]", "{}", "0x10", "1_000", "²", "٣", "é", "\0", "\x1a", "\ufeff", '"', "'", ",",
    ";", "\t", "a=b", "../x", "/x", "9" * 25, "9" * 400, "9" * 5000, "-" + "9" * 5000, "1 2", "#", "%s", "${x}",
    "x" * 300,
)  # fmt: skip

#: What stands in JSON, YAML or an attribute where something else should.
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 3.5, -0.5, 10**7, 10**25, -(10**25), 1e308, float("nan"), float("inf"),
    "", "x", "é\ud800", "x" * 1000, "../x", [], [None], [[]], ["x"], [1], {}, {"x": 1}, {"": None},
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A changed file: ``how`` names the kind of change, ``content`` is what is now in it, ``note`` says more."""

    how: str
    content: Any
    note: Any = None

    def __repr__(self) -> str:
        # hypothesis prints it; what is longer than a few lines helps nobody
        return f"Case({self.how!r}, {self.content!r:.1500}, {self.note!r:.200})"


@dataclass(frozen=True)
class Whole:
    """What is to be changed; hypothesis would print it where it names a strategy."""

    content: Any

    def __repr__(self) -> str:
        return "..."


def changed_bytes(content: bytes) -> st.SearchStrategy[Case]:
    """A file of which bits were turned, bytes replaced, cut off, left out, put in, or a piece repeated."""
    return _changed_bytes(Whole(content))


@st.composite
def _changed_bytes(draw: st.DrawFn, whole: Whole) -> Case:
    content: bytes = whole.content
    how = draw(st.sampled_from(("bit", "byte", "cut", "left out", "put in", "repeated", "zeros")))
    at = draw(st.integers(0, len(content) - 1))
    if how == "bit":
        new = content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
    elif how == "byte":
        new = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
    elif how == "cut":
        new = content[:at]
    elif how == "put in":
        new = content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at:]
    else:
        end = min(len(content), at + draw(st.integers(1, 64)))
        piece = content[at:end]
        new = content[:at] + {"left out": b"", "repeated": piece * 2, "zeros": bytes(len(piece))}[how] + content[end:]
    return Case(f"bytes: {how}", new)


def changed_table(rows: list[list[str]], words: tuple[str, ...] = (), separator: str = ",") -> st.SearchStrategy[Case]:
    """A csv's text in which a field was replaced, left out or added, or a line was repeated, left out or moved."""
    return _changed_table(Whole(rows), words, separator)


@st.composite
def _changed_table(draw: st.DrawFn, whole: Whole, words: tuple[str, ...], separator: str) -> Case:
    rows: list[list[str]] = [list(row) for row in whole.content]
    how = draw(
        st.sampled_from(("field",) * 6 + ("field left out", "field added", "line again", "line left out", "moved"))
    )
    at = draw(st.integers(0, len(rows) - 1))
    column = draw(st.integers(0, len(rows[at]) - 1))
    if how == "field":
        rows[at][column] = draw(st.sampled_from(words + HOSTILE))
    elif how == "field left out":
        del rows[at][column]
    elif how == "field added":
        rows[at].insert(column, draw(st.sampled_from(HOSTILE)))
    elif how == "line again":
        rows.insert(at, rows[at])
    elif how == "line left out":
        del rows[at]
    else:
        rows.insert(draw(st.integers(0, len(rows) - 1)), rows.pop(at))
    where = "header" if at == 0 and how != "moved" else "row"
    return Case(f"table: {where}, {how}", "".join(f"{separator.join(row)}\n" for row in rows))


def written_otherwise(text: str, separator: str = ",") -> st.SearchStrategy[Case]:
    """The same text as other programs write it: line ends, encodings, separators, quotes, blank lines."""
    return _written_otherwise(Whole(text), separator)


@st.composite
def _written_otherwise(draw: st.DrawFn, whole: Whole, separator: str) -> Case:
    text: str = whole.content
    ways = {
        "CR LF": lambda: text.replace("\n", "\r\n"),
        "CR": lambda: text.replace("\n", "\r"),
        "semicolons": lambda: text.replace(separator, ";"),
        "tabs": lambda: text.replace(separator, "\t"),
        "BOM": lambda: "\ufeff" + text,
        "blank line": lambda: text + "\n",
        "blank lines": lambda: text.replace("\n", "\n\n"),
        "no last line end": lambda: text[:-1],
        "blanks": lambda: text.replace(separator, f" {separator} "),
        "capitals": lambda: text.upper(),
        "Ctrl-Z": lambda: text + "\x1a",
    }
    how = draw(st.sampled_from((*ways, "UTF-16", "UTF-16 BE")))
    if how.startswith("UTF-16"):
        return Case(f"written: {how}", text.encode("utf-16" if how == "UTF-16" else "utf-16-be"))
    return Case(f"written: {how}", ways[how]())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all that a document of dicts and lists holds; of a list the first and the last item."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        for at in sorted({0, len(value) - 1}):
            found += places(value[at], (*path, at))
    return found


def at_place(value: Any, path: tuple[Any, ...]) -> Any:
    """Return what a document holds at a path."""
    for key in path:
        value = value[key]
    return value


def changed_document(
    value: Any, values: tuple[Any, ...] = HOSTILE_VALUES, keep: tuple[tuple[Any, ...], ...] = ()
) -> st.SearchStrategy[Case]:
    """A document of dicts and lists in which a value was replaced, left out, renamed or put in; the note is where.

    Places that begin with one of ``keep`` stay as they are.
    """
    return _changed_document(Whole(value), Whole(values), keep)


@st.composite
def _changed_document(draw: st.DrawFn, whole: Whole, others: Whole, keep: tuple[tuple[Any, ...], ...]) -> Case:
    value, values = copy.deepcopy(whole.content), others.content
    paths = [path for path in places(value) if not any(path[: len(kept)] == kept for kept in keep)]
    path = draw(st.sampled_from(paths))
    how = draw(st.sampled_from(("replaced", "replaced", "replaced", "left out", "renamed", "put in")))
    holder, key = at_place(value, path[:-1]), path[-1]
    if how == "replaced":
        holder[key] = draw(st.sampled_from(values))
    elif how == "left out":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, draw(st.sampled_from(values)))
    elif how == "renamed":
        holder[f"{key}_"] = holder.pop(key)
    else:
        holder["unknown"] = draw(st.sampled_from(values))
    return Case(f"{path[0]}: {how}", value, path)


def as_json(case: Case) -> Case:
    """A case whose content is a document, as the bytes of a JSON file."""
    text = json.dumps(case.content)
    return Case(case.how, text.encode("utf-8", "surrogatepass"), case.note)


def as_bytes(case: Case) -> Case:
    """A case whose content is text, as the bytes of a file."""
    content = case.content
    return Case(
        case.how, content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"), case.note
    )
