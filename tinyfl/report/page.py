"""A run's report: report.html, a self-contained page, and its figures as separate PNGs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyfl.algorithms import Inner
from tinyfl.config import Config
from tinyfl.core import F32
from tinyfl.errors import ConfigError, DataError, InstallError
from tinyfl.errors.words import shell
from tinyfl.networks import BATCHES, INITIALISATION, SINGLE, WEIGHTS, Network, is_file, starts_from
from tinyfl.networks.layers import Loss
from tinyfl.registry.shown import shots_of
from tinyfl.report import figures, html, late, line
from tinyfl.report.comparison import curves_of, named_in
from tinyfl.report.devices import Comparison, Picture, device_figures
from tinyfl.report.figures import Curve, NotDrawn, Note, drawn, tell_missing
from tinyfl.report.guidance import guidance
from tinyfl.report.html import counted
from tinyfl.report.tables import comparison, on_the_line, worst_devices
from tinyfl.report.verdict import LABELS, interval, leading, method, of_labels, of_values, reached, without_a_network
from tinyfl.runs.adaptation import Initialisation, adaptation_of
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.elsewhere import Elsewhere
from tinyfl.runs.evaluation import LEADING_STEPS, Adaptation, after_words, compares
from tinyfl.runs.hashes import FILES
from tinyfl.runs.learner import algorithm_of
from tinyfl.runs.tables import METRICS, metric
from tinyfl.system.files import write_whole
from tinyfl.tasks import Task

Row = Mapping[str, Any]
Result = Mapping[str, Any]

REPORT = "report.html"

MAX_PER_LINE = 1000
"""Maximum length of a verdict or a note, in characters."""


def write_report(
    directory: RunDirectory,
    config: Config,
    task: Task,
    net: Network,
    theta: F32,
    start: F32,
    result: dict[str, Any],
    adaptation: Adaptation,
    note: Note = str,
) -> Path:
    """Writes report.html, learning.png, adaptation.png, bytes.png and devices.png of a finished run. ``theta`` is the learnt,
    ``start`` the initial weights; devices adapt by ``adaptation``. ``note`` receives a line if figures cannot be drawn. Returns
    the page's path."""
    learnt, baseline = leading(result["evaluation"]), leading(result["baseline"])
    comparison = Comparison(
        net, theta, start, learnt["adapt_lr"], baseline["adapt_lr"], learnt["shots"], config.tasks, config.clip,
        starts_from(config.network), adaptation,
    )  # fmt: skip
    elsewhere = DataError("The samples are at their sites.")
    picture = elsewhere if isinstance(task, Elsewhere) else drawn(lambda: device_figures(task, comparison))
    return _write(directory, config, net, result, picture, note)


def rebuild(path: Path, note: Note = str) -> Path:
    """Rewrites the page of the finished run in ``path`` from its files alone. Returns the page's path.

    If the user's data file is missing or has changed, the figure of single devices is left out, with a note on the page.
    Raises RunError if the run has not finished.
    """
    directory = RunDirectory(path)
    result, config, initialisation = directory.result(), directory.config(), Initialisation.load(path)
    try:
        _refuse_other_files(directory, config)
        if not config.chosen("task").loads_by_name:
            raise ConfigError(
                f"The data are those of {config.chosen('task').called}, and a report loads no code of anybody's own."
            )
        task = config.load_task(initialisation.standard)
        start = _start(config, task, initialisation.network)
        adaptation = adaptation_of(path / INITIALISATION, initialisation)
    except (DataError, ConfigError, InstallError, OSError) as error:
        return _write(directory, config, initialisation.network, result, error, note)
    return write_report(directory, config, task, initialisation.network, initialisation.theta, start, result, adaptation, note)


def _start(config: Config, task: Task, net: Network) -> F32:
    """A run's initial weights."""
    if config.network.endswith(WEIGHTS):
        return Initialisation.load(Path(config.network)).theta
    if not is_file(config.network):
        return net.initial_weights(config.seed)
    from tinyfl.networks.keras import from_keras

    return from_keras(config.network, loss=task.loss)[1]


def _refuse_other_files(directory: RunDirectory, config: Config) -> None:
    """Raises DataError if the run's data or network file is missing or has changed."""
    checkpoint = directory.checkpoint()
    for key, file_hash in FILES.items():
        try:
            found = file_hash(config)
        except OSError as error:
            raise DataError(f"{error.filename}: no such file.") from error
        before = checkpoint and getattr(checkpoint, f"{key}_sha256")
        if found and before and before != found:
            raise DataError(f"{getattr(config, key)} was changed since the run.")


def compare(paths: Sequence[Path], out: Path, note: Note = str) -> Path:
    """Writes one page at ``out`` that compares finished runs of one task. Returns its path.

    Raises ConfigError for runs of different tasks or data, RunError for a run that has not finished.
    """
    if not paths:
        raise ConfigError("no runs to compare. Give two or more run directories: tinyfl compare runs/a runs/b.")
    results = _comparable(paths)
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    curves = curves_of(names, results)
    title = f"{results[0]['task']} · {counted(len(results), 'run')} side by side"
    floor = [row for result in reversed(results) for row in result["floor"]]  # the first run's, if it has one
    picture = drawn(lambda: figures.adaptation(curves, floor))
    spent = line.together(names, paths, results)
    over_bytes = drawn(lambda: figures.over_bytes(spent, METRICS["loss"])) if spent else None
    tell_missing([picture, over_bytes], shell("tinyfl", "compare", *paths, "--out", out), note)
    body = [
        html.header(title, f"What unseen devices reach after {LEADING_STEPS} adaptation steps, and what it took."),
        html.section("What they reach", comparison(names, results)),
        html.section(
            "How unseen devices adapt",
            html.image(
                picture, "Adaptation curves of the runs, with 95 % intervals.", named_in(results) + _adaptation_caption(results)
            ),
        ),
        *([html.section("What went over the line", line.picture(over_bytes, validated=True))] if over_bytes else []),
    ]
    write_whole(out, html.whole(title, body, "broad"))
    return out


def _comparable(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Reads the results of the runs in ``paths``, which must be of one task on the same data."""
    directories = [RunDirectory(path) for path in paths]
    results = [directory.result() for directory in directories]
    points = [directory.checkpoint() for directory in directories]
    first = results[0]["task"]
    for path, result, point in zip(paths, results, points, strict=True):
        other = f"task {result['task']}" if result["task"] != first else ""
        if not other and point and points[0] and point.data != points[0].data:
            other = "other data"
        if other:
            raise ConfigError(
                f"{paths[0]} is a run of task {first} and {path} of {other}: their figures are not comparable. Compare runs "
                f"of one task on the same data, and report the others separately: {shell('tinyfl', 'report', path)}."
            )
    return results


def _write(
    directory: RunDirectory, config: Config, net: Network, result: Result, picture: Picture | Exception, note: Note
) -> Path:
    """Writes the page and its figures; ``picture`` is the figure of single devices, or the reason for its absence."""
    values = net.loss is Loss.mean_squared_error
    unit = "mean squared error" if values else "cross-entropy"
    curves = [
        Curve(starts_from(config.network), result["baseline"], figures.ORANGE, "-."),
        Curve("learnt initialisation", result["evaluation"], figures.BLUE, figures=True),
    ]
    metrics, rows = directory.metrics(), result.get("validation", [])
    learning = drawn(lambda: figures.learning_curve(metrics, unit, log=values))
    adaptation = drawn(lambda: figures.adaptation(curves, result["floor"]))
    validation = drawn(lambda: figures.validation(rows, result.get("best_round"), unit)) if rows else None
    spent = drawn(lambda: figures.over_bytes([line.spending(directory, result, metrics)], unit))
    stale = drawn(lambda: figures.staleness(result["staleness"])) if result.get("staleness") else None
    pngs = {"learning.png": learning, "adaptation.png": adaptation, "validation.png": validation, "bytes.png": spent}
    pngs |= {"staleness.png": stale, "devices.png": picture.png if isinstance(picture, Picture) else None}
    tell_missing([*pngs.values(), picture], shell("tinyfl", "report", directory.name), note)
    for name, png in pngs.items():
        if isinstance(png, bytes):
            directory.save(name, png)
    learning_note = (
        f"Loss ({unit}) of the devices on their own samples, each measured before the step on it. Every device starts its "
        "round from the initialisation, so this falls as devices learn faster from the initialisation."
    )
    adapted = html.image(adaptation, "Adaptation curves with 95 % intervals.", _adaptation_caption([result]))
    title = f"{result['task']} · {result['algorithm']}"
    body = [
        html.header(title, _fleet(config, result)),
        _verdict(result),
        f'<p class="headline">{_headline(config, result, net)}</p>',
        f'<p class="note">{html.text(words, MAX_PER_LINE)}</p>' if (words := guidance(config)) else "",
        _tiles(config, result),
        html.section("How the fleet learnt", html.image(learning, "Learning curve over the rounds.", learning_note)),
        *([html.section("How late updates were", late.section(result, stale))] if stale else []),
        *([html.section("What validation devices reached", _validation(result, validation))] if validation else []),
        html.section("How unseen devices adapt", adapted),
        html.section("What some of them do", _devices(picture)),
        *([html.section("Who does badly", worst_devices(result))] if result.get("per_device") else []),
        html.section("What each device needed", _needs(config, net, result)),
        html.section("What went over the line", line.section(config, result, spent)),
        html.section("The whole evaluation", _evaluation(config, result)),
        html.section("What it learnt from", _notes(config, result)),
        html.section("To repeat it", _repeat(directory.name, config, result)),
    ]
    directory.save(REPORT, html.whole(title, body))
    return directory.name / REPORT


def _validation(result: Result, png: bytes | NotDrawn) -> str:
    caption = (
        f"{after(result, 'full-batch steps at the best rate for them').capitalize()}, every so many rounds. They choose the "
        "result, so their figures flatter it: those of unseen devices, below, do not."
    )
    return html.image(png, "Evaluations on validation devices over sample gradients.", caption)


def _verdict(result: Result) -> str:
    """The warning at the top of the page if the run is worse than its floor."""
    words = result.get("verdict", "")
    return f'<p class="verdict">{html.text(words, MAX_PER_LINE)}</p>' if words else ""


def _notes(config: Config, result: Result) -> str:
    """The changes to the user's data and network, and the results without a network."""
    notes = result.get("notes") or [f"task {config.task}, with its own data"]
    lines = [*notes, f"start: {starts_from(config.network)}", *without_a_network(result)]
    return "<ul>" + "".join(f"<li>{html.text(line, MAX_PER_LINE)}</li>" for line in dict.fromkeys(lines)) + "</ul>"


def _fleet(config: Config, result: Result) -> str:
    data = [Path(config.data).name] if config.data else []
    return " · ".join(
        [
            *data,
            f"{result['network']}, {result['parameters']:,} weights",
            f"{counted(result['devices'], 'device')}, {_at_once(config)}",
            counted(result["rounds"], "round"),
        ]
    )


def _at_once(config: Config) -> str:
    return f"{config.cohort:,} at work, {config.buffer:,} arrivals a round" if config.buffer else f"{config.cohort:,} a round"


def _headline(config: Config, result: Result, net: Network) -> str:
    row, start = leading(result["evaluation"]), leading(result["baseline"])
    if _per_class(result):
        learns_from = f"{counted(row['shots'], 'sample')} of each of its {config.ways if net.embeds else net.outputs} classes"
    else:
        learns_from = f"{row['shots']:,} of its own samples"
    lead = f"{after(result).capitalize()} {'of' if net.embeds else 'on'} {learns_from}, an unseen device"
    figure = f'<strong class="n">{reached(row)}</strong>'
    others = f'; {starts_from(config.network)} <span class="n">{_value(start)}</span>'
    floor = next((f for f in reversed(result["floor"]) if f["shots"] == row["shots"]), None)
    if floor is not None:
        others += f', {html.text(method(floor))} <span class="n">{_value(floor)}</span>'
    if row["accuracy"] is not None:
        return f"{lead} answers {figure} right{others}."
    if row.get("macro_ap") is not None:
        return f"{lead} gives answers whose macro average precision, over all such devices, is {figure}{others}."
    if not html.known(row["loss"]):
        return f"{lead} may have {figure}: at least one of {row['tasks']:,} did{others}."
    return f"{lead} has a mean squared error of {figure}{others}."


def after(result: Result, steps: str = "steps") -> str:
    return after_words(result["evaluation"], steps)


def _per_class(result: Result) -> bool:
    """Whether shots are counted per class; an older tinyfl did not write it."""
    return str(result.get("shots_of") or shots_of(result["task"])) == "class"


def _value(row: Row) -> str:
    """A row's result, rounded as its interval supports, without the interval."""
    return reached(row).partition(" ±")[0]


def _tiles(config: Config, result: Result) -> str:
    both_ways = sum(on_the_line(result)) / result["device_rounds"]
    what = {"accuracy": "right", "macro_ap": "macro average precision"}.get(metric(result["evaluation"]), "error")
    tiles = [
        (_value(leading(result["evaluation"])), f"{what} {after(result)}"),
        (_value(leading(result["baseline"])), starts_from(config.network)),
        (html.size(result["device_ram_bytes"]), "of RAM to learn"),
        (html.size(both_ways), "down and up, each round"),
    ]
    inside = "".join(
        f'<div class="tile{"" if i else " first"}"><b class="n">{value}</b><span>{below}</span></div>'
        for i, (value, below) in enumerate(tiles)
    )
    return f'<div class="tiles">{inside}</div>'


def _adaptation_caption(results: Sequence[Result]) -> str:
    devices = max(row["tasks"] for result in results for row in result["evaluation"])
    return (
        f"Mean over {counted(devices, 'unseen device')}; bands are 95 % intervals. The hollow points at 0 steps are from "
        "before any adaptation and are no measure of meta-learning, which seeks weights that improve a lot in a few steps, not "
        "weights that are good already."
    )


def _devices(picture: Picture | Exception) -> str:
    if isinstance(picture, Picture):
        return html.image(picture.png, "Unseen devices before and after adaptation.", picture.caption)
    if isinstance(picture, NotDrawn):
        return html.image(picture, "", "")
    why = html.text(picture, html.MAX_PARAGRAPH_CHARS)
    return f'<p class="note">Left out: this figure needs the data of the run. {why}</p>'


def _memory(batch: int) -> str:
    return "weights, activations and deltas" + "; a gradient" * (batch > 1)


def _inner(config: Config, net: Network) -> Inner | None:
    """The inner loop of the first round, if the report has the algorithm's code."""
    try:
        return algorithm_of(config, net).inner(0)
    except ConfigError:  # of code that is not here, or that a report does not load
        return None


def _needs(config: Config, net: Network, result: Result) -> str:
    inner = _inner(config, net)
    support = leading(result["evaluation"])["shots"] * (net.outputs if _per_class(result) else 1)
    rows = [
        ("RAM to learn in a round", html.size(result["device_ram_bytes"]), _memory(inner.batch) if inner else ""),
        ("RAM to adapt by full-batch steps", html.size(net.ram_bytes(BATCHES if support > 1 else SINGLE)), _memory(support)),
        *(
            [("Samples each round", f"{inner.samples:,}", f"{counted(inner.steps, 'SGD step')}, batch {inner.batch:,}")]
            if inner
            else []
        ),
        ("Rounds each device took part in", html.three_digits(result["device_rounds"] / result["devices"]), "on average"),
    ]
    body = "".join(
        f'<tr><th scope="row">{what}</th><td class="r">{value}</td><td class="dim">{note}</td></tr>'
        for what, value, note in rows
    )
    return html.table("", body, "needs")


def _evaluation(config: Config, result: Result) -> str:
    classifies = metric(result["evaluation"]) == "accuracy"
    values = any(row.get("mae") is not None for row in result["evaluation"])
    labels = list(LABELS.values()) if metric(result["evaluation"]) == "macro_ap" else []
    columns = ["rate", "loss", *["accuracy"] * classifies, *["mean absolute error", "R²"] * values, *labels]
    group = f'<th colspan="{len(columns)}" class="group">'
    head = f'<tr><th colspan="3"></th>{group}learnt</th>{group}{starts_from(config.network)}</th><th></th></tr>'
    head += '<tr><th class="l">mode</th>'
    head += "".join(f"<th>{name}</th>" for name in ("shots", "steps", *columns, *columns, "devices")) + "</tr>"
    body = ""
    for learnt, start in zip(result["evaluation"], result["baseline"], strict=True):
        texts = [f"{learnt['shots']:,}", f"{learnt['steps']:,}"]
        for row in (learnt, start):
            texts += ["" if row["adapt_lr"] is None else f"{row['adapt_lr']:g}", html.loss(row["loss"], row["loss_ci95"])]
            texts += [reached(row)] if classifies else []
            texts += of_values(row) if values else []
            texts += of_labels(row) if labels else []
        texts.append(f"{learnt['tasks']:,}")
        kind = "lead" if compares(learnt) else "first" if learnt["steps"] == 0 else ""
        body += f'<tr class="{kind}"><td>{html.text(learnt["mode"])}</td>{html.cells(texts)}</tr>'
    floor = "".join(
        f" {html.text(method(f)).capitalize()}, {counted(f['shots'], 'shot')}: {reached(f)}." for f in result["floor"]
    )
    width = interval(result["evaluation"])
    note = f"{width[0].upper()}{width[1:]}. Reports lead with the tinted rows, {after(result)}.{floor}"
    return f'{html.table(head, body)}<p class="note">{note}</p>'


def _repeat(path: Path, config: Config, result: Result) -> str:
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in result["left_out"].items())
    speed = f"{result['device_rounds_per_s']:,.0f} device-rounds a second"
    facts = [
        ("Seed", str(result["seed"])),
        ("SHA-256 of theta", result["theta_sha256"]),
        ("SHA-256 of the config", result["config_sha256"]),
        *([("tinyfl", result["tinyfl"])] if result.get("tinyfl") else []),
        ("Updates left out", f"{left_out or 'none'}, of {result['device_rounds']:,}"),
        *((f"Failed: {part}", why) for part, why in result.get("failed", {}).items()),
        ("Devices", _kinds(result)),
        ("Rounds took", f"{html.seconds(result['seconds'])}, {speed}"),
        ("Learnt from", f"{result['sample_gradients']:,} sample gradients"),
    ]
    terms = "".join(f"<dt>{html.text(name)}</dt><dd>{html.text(value)}</dd>" for name, value in facts)
    command = html.pre(shell("tinyfl", "run", path / "config.toml", *config.words))
    return (
        f"{command}<p>The same config gives the same initialisation, bit for bit.</p><dl>{terms}</dl>"
        f"<details><summary>config.toml</summary>{html.pre(config.to_toml())}</details>"
    )


def _kinds(result: Result) -> str:
    """The numbers of simulated devices and of boards of each kind."""
    boards = Counter(board.get("board", "at a port") for board in result.get("boards", []))
    simulated = result["devices"] - boards.total()
    kinds = [f"{simulated:,} simulated"] if simulated else []
    kinds += [f"{counted(count, 'board')} {kind}" for kind, count in boards.items()]
    return ", ".join(kinds)
