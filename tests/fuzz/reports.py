"""report.json of evaluations, compared."""

import json
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from scipy.stats import binomtest

from fer.evaluation.compare import compare, compare_table
from fer.evaluation.metrics import summarize
from tests.fuzz.family import Family, require
from tests.fuzz.mutations import HOSTILE_VALUES, Case, as_json, changed_bytes, changed_document, changed_table

_NAMES = ("Angry", "Happy", "Sad")
_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "top2_accuracy", "ece")


@cache
def _report() -> dict:
    labels = np.arange(12) % 3
    probabilities = np.full((12, 3), 0.1)
    probabilities[np.arange(12), (labels + (np.arange(12) > 7)) % 3] = 0.8
    return {
        "model": "vgg_small", "data": "sample", "split": "test", "checkpoint": "best.ckpt", "drawn": True, "notes": [],
        "size": 48, "pretrained": None, "headline": "plain", "plain": summarize(probabilities, labels, _NAMES),
    }  # fmt: skip


def _predictions() -> list[list[str]]:
    rows = [["source", "path", "label", "prediction"]]
    for n in range(12):
        rows.append(["tiny", str(n), _NAMES[n % 3], _NAMES[(n % 3 + (n > 7)) % 3]])
    return rows


def _cases() -> st.SearchStrategy[Case]:
    document = _report()
    text = json.dumps(document).encode()
    inner = changed_document(document["plain"], (*HOSTILE_VALUES, 1.5, 0.25)).map(
        lambda case: Case(f"plain {case.how}", document | {"plain": case.content})
    )
    table = changed_table(_predictions(), ("Angry", "13")).map(
        lambda case: Case(f"predictions {case.how}", case.content.encode(), "predictions.csv")
    )
    report = st.one_of(changed_document(document).map(as_json), inner.map(as_json), changed_bytes(text))
    return st.one_of(report, report, report.map(lambda case: Case(case.how, case.content)), table)


def _open(case: Case, folder: Path) -> None:
    for name in ("first", "second"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "report.json").write_text(json.dumps(_report()))
        (folder / name / "predictions.csv").write_text("".join(f"{','.join(row)}\n" for row in _predictions()))
    file = case.note if case.note == "predictions.csv" else "report.json"
    (folder / "second" / file).write_bytes(case.content)
    both = [folder / "first", folder / "second"]
    text = compare(both)
    require("NaN" not in text and "nan" not in text and "inf" not in text, "a score that is no number")
    if file == "predictions.csv":
        if "p = 1.0000" not in text:
            require("no p-value" in text, "a p-value of other predictions")
        return
    row = compare_table(both).iloc[1]
    said = json.loads(case.content)
    headline = said[said["headline"]]
    for key in _SCORES:
        require(row[key] == headline[key], f"{key} {row[key]}")
        require(type(headline[key]) in (int, float) and 0 <= headline[key] <= 1, f"{key} {headline[key]!r:.60}")
    require(type(headline["n"]) is int and headline["n"] == np.sum(headline["confusion"]), f"n {headline['n']!r:.60}")
    low, high = headline["accuracy_95"]
    accuracy = np.trace(headline["confusion"]) / headline["n"]
    # a turned bit of a number's last digits is not seen, and changes nothing that is shown
    require(abs(headline["accuracy"] - accuracy) <= 1e-9, f"accuracy {headline['accuracy']}")
    require(0 <= low <= accuracy <= high <= 1, f"interval {low} to {high} of {accuracy}")
    interval = binomtest(int(np.trace(headline["confusion"])), headline["n"]).proportion_ci(method="wilson")
    require(np.allclose((low, high), interval, atol=1e-9), f"interval {low} to {high}, not {interval}")
    require(headline["top2_accuracy"] >= accuracy - 1e-9, f"top-2 accuracy {headline['top2_accuracy']}")
    require(said["size"] is None or said["size"] > 0 if "size" in said else True, f"size {said.get('size')}")


FAMILIES = [Family("report.json", lambda: [as_json(Case("whole", _report()))], _cases, _open)]
