"""The model card: the results of ``tinyfl.export.model.export`` as Markdown."""

from math import prod
from pathlib import Path
from typing import Any

from tinyfl.errors.words import markdown, plain
from tinyfl.export.measure import CORE

SHARES = ("accuracy", "labels right", "macro_ap")
NAMED = {"macro_ap": "macro average precision"}
"""Metrics of the evaluation that are called otherwise in words."""


def card(facts: dict[str, Any]) -> str:
    """The card as Markdown."""
    return "\n".join(
        [
            f"# {markdown(facts['network'])} for {markdown(facts['task'])}",
            "",
            _purpose(facts),
            "",
            *_section("Measured", _measured(facts)),
            *_section("Files", _files(facts)),
            *_section("In and out", _ends(facts)),
            *_section("Network", _network(facts)),
            *_section("Learnt", _learnt(facts)),
            *_section("Limits", _limits(facts)),
        ]
    )


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def _code(words: object) -> str:
    """Encloses untrusted words in backticks, replacing backticks in them."""
    return f"`{plain(words).replace('`', chr(39))}`"


def _purpose(facts: dict[str, Any]) -> str:
    if facts["adapted"] is not None:
        return f"Weights adapted to test device {facts['device']} of the run {_code(facts['run'])}, for that device alone."
    if facts["learnt"] is None:
        return f"The weights in {_code(facts['run'])}, without their run."
    return (
        f"The initialisation of the run {_code(facts['run'])}: from which devices start to adapt. "
        "It is not meant for use without adaptation."
    )


def _measured(facts: dict[str, Any]) -> list[str]:
    lines = []
    for case in facts["measured"]:
        devices = min(row["devices"] for row in case["rows"])
        lines += [f"On {case['on']}:", ""]
        rows = [
            [row["numbers"], row["by"], figure(row["value"], row["ci95"], facts["metric"]), drop(row, facts["metric"])]
            for row in case["rows"]
        ]
        lines += _table(["numbers", "run by", facts["metric"], "worse than the core in float32 by"], rows)
        lines += [
            "",
            f"{case['rows'][0]['samples']:,} samples of each" + ("; 95 % intervals over devices." if devices > 1 else "."),
            "",
        ]
    lines += [f"Not run: {markdown(name)} ({markdown(why)})." for name, why in facts["not_run"].items()]
    return lines


def figure(value: float | None, ci95: float | None, metric: str) -> str:
    """Formats a share in per cent, or an error, with the half-width of its interval."""
    if value is None:
        return "not finite"
    if metric not in SHARES:
        return f"{value:.4g}" + ("" if ci95 is None else f" ± {ci95:.2g}")
    return f"{100 * value:.1f} %" + ("" if ci95 is None else f" ± {100 * ci95:.1f}")


def drop(row: dict[str, Any], metric: str) -> str:
    """Formats a row's loss against the core in float32: in percentage points, or as an error."""
    if (row["numbers"], row["by"]) == ("float32", CORE):
        return ""
    by = figure(abs(row["drop"]), row["drop_ci95"], metric) if row["drop"] is not None else "not finite"
    by = f"{by.replace(' %', '')} points" if metric in SHARES else by
    better = row["drop"] is not None and row["drop"] < 0 and float(by.split()[0]) > 0
    return f"better by {by}" if better else by


def _files(facts: dict[str, Any]) -> list[str]:
    rows = [[_code(Path(file["path"]).name), f"{file['bytes']:,}", f"`{file['sha256']}`"] for file in facts["files"]]
    lines = _table(["file", "bytes", "SHA-256"], rows)
    if facts["int8"]:
        lines += [
            "",
            f"In tinyfl's core the int8 model takes {facts['int8']['program_bytes']:,} bytes of flash and "
            f"{facts['int8']['arena_bytes']:,} of RAM, without the code.",
        ]
    return lines


def _ends(facts: dict[str, Any]) -> list[str]:
    shape = " x ".join(map(str, facts["shape"]))
    lines = [f"- Input: 1 x {shape}, row by row" + (", channels last" if len(facts["shape"]) == 3 else "") + "."]
    if facts["inputs"]:
        which = "Inputs of each row" if len(facts["shape"]) > 1 else "Inputs"
        lines.append(f"- {which}, in order: {', '.join(map(markdown, facts['inputs']))}.")
    if facts["standardised"]:
        lines.append(
            "- Standardise first: (x - mean) / scale, input by input, in float64; the model does not do it. "
            "Both are in the C files, and in the run's initialisation.npz."
        )
    meaning = {
        "softmax_cross_entropy": "logits: the largest is the answer; softmax turns them into probabilities",
        "sigmoid_cross_entropy": "logits, each above 0 for yes; sigmoid turns them into probabilities",
        "mean_squared_error": "values",
        "prototypes": "an embedding: a class is the mean of its samples' embeddings, and the nearest mean is the answer",
    }[facts["loss"]]
    lines.append(f"- Output: 1 x {facts['outputs']:,}, {meaning}.")
    if facts["targets_standardised"]:
        lines.append(
            "- A value in the units of the data is target_mean + target_scale * output, output by output; the model does not "
            "do it. Both are in the C files, and in the run's initialisation.npz. The errors above are in those units."
        )
    if facts["classes"]:
        lines.append(f"- Classes, in order: {', '.join(map(markdown, facts['classes']))}.")
    if facts["int8"]:
        lines += [
            f"- int8 {end} q represents {facts['int8'][end]['scale']:.9g} x (q - {facts['int8'][end]['zero']}).".replace(
                "- -", "+ "
            )
            for end in ("input", "output")
        ]
        lines.append(
            f"- The ranges of int8 numbers are those of {facts['representative_samples']:,} samples of training devices; "
            "values beyond saturate."
        )
    return lines


def _network(facts: dict[str, Any]) -> list[str]:
    rows = []
    for layer in facts["layers"]:
        window = (
            "" if layer["kind"] == "dense" else f"{_by(layer['kernel'])}, stride {_by(layer['stride'])}, {layer['padding']}"
        )
        ends = [str(prod(e)) if layer["kind"] == "dense" else _by(e) for e in (layer["input"], layer["output"])]
        weights = f"{layer['weights']:,}" + ("" if layer["learns"] or not layer["weights"] else ", frozen")
        rows.append([layer["kind"].replace("_", " "), *ends, window, layer["activation"].replace("_", " "), weights])
    table = _table(["layer", "input", "output", "window", "activation", "weights"], rows)
    return [*table, "", f"{facts['parameters']:,} weights and biases; SHA-256 of theta `{facts['theta_sha256']}`."]


def _by(sizes: list[int]) -> str:
    return " x ".join(map(str, sizes))


def _learnt(facts: dict[str, Any]) -> list[str]:
    lines = [f"- Task: {markdown(facts['task'])}" + (f", {markdown(facts['about'])}." if facts["about"] else ".")]
    learnt = facts["learnt"]
    if learnt:
        if learnt["data"]:
            lines.append(f"- Data: {_code(learnt['data'])}, SHA-256 `{learnt['data_sha256']}`.")
        row = learnt["evaluation"]
        values = ""
        if row.get("mae") is not None:
            r2 = "" if row["r2"] is None else f" and R² {row['r2']:.3f}"
            values = f", mean absolute error {figure(row['mae'], row['mae_ci95'], 'mae')}{r2},"
        what = next((key for key in ("macro_ap", "accuracy") if row.get(key) is not None), "loss")
        reached = f"{NAMED.get(what, what)} {figure(row[what], row.get(f'{what}_ci95'), what)}"
        lines += [
            f"- By {markdown(learnt['algorithm'])}: {learnt['rounds']:,} rounds with {learnt['cohort']:,} of "
            f"{learnt['devices']:,} training devices each, {learnt['sample_gradients']:,} sample gradients.",
            f"- The run's own evaluation, in float32 on {row['tasks']:,} test devices: {reached}{values} after "
            f"{row['steps']} full-batch steps on {row['shots']} shots.",
        ]
    return [
        *lines,
        f"- Seed {facts['seed']}, SHA-256 of the config `{facts['config_sha256']}`.",
        f"- tinyfl {facts['tinyfl']}: the same config and seed give the same weights, bit for bit. "
        f"Converted by TensorFlow {facts['tensorflow']}.",
    ]


def _limits(facts: dict[str, Any]) -> list[str]:
    lines = [
        "- All figures were measured on the machine that wrote this card, on samples of the task above; none on a board, "
        "and none on other data.",
    ]
    if facts["learnt"] is None:
        lines.append("- The model's accuracy is unknown here, only its agreement with the core in float32.")
    elif facts["adapted"] is not None:
        lines.append("- One device's figures say nothing about another's.")
    else:
        lines.append(
            "- After adaptation every device has its own weights, ranges and int8 files, which differ from those here."
        )
    if facts["of_user"]:
        lines.append("- The model has learnt only from these samples: check that their devices resemble those of its use.")
    return lines
