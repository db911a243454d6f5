"""Resuming a run: what may differ from its start, and how the run's directory takes that over.

Its data, and a network's file, may be at other paths. It may get another number of rounds: an algorithm whose schedule depends
on that number, such as an outer step that falls to 0, then follows the schedule of the new number from there on, and the config
keeps the old one for the rounds before. A run that stopped early goes on with more patience.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tinyfl.algorithms import alpha_of
from tinyfl.config import MAY_CHANGE, Config, read_settings, renamed, resolve
from tinyfl.config.settings import MAX_ROUNDS
from tinyfl.errors import RunError
from tinyfl.errors.words import plain, shell
from tinyfl.networks import is_file
from tinyfl.runs.directory import CONFIG, Checkpoint, RunDirectory
from tinyfl.runs.extensions import again
from tinyfl.runs.hashes import FILES
from tinyfl.runs.learner import Learner, Load, fitted

ROUNDS = ("rounds", "continued", "patience")
"""Settings that say how long the run is."""


@dataclass(frozen=True)
class Resumption:
    """A run to resume: its config as ``saved``, and as it is ``wanted`` now, with its learner. ``notes`` describe the
    difference, for people."""

    saved: Config
    wanted: Config
    learner: Learner
    notes: tuple[str, ...] = ()

    def take_over(self, directory: RunDirectory) -> None:
        """Writes the paths of moved files, and the number of rounds, into the directory's config."""
        changed = replace(self.saved, **{key: getattr(self.wanted, key) for key in (*FILES, *ROUNDS)})
        if changed != self.saved:
            directory.change(self.saved, changed)


def resumed(
    directory: RunDirectory, options: Mapping[str, Any], file: Path | None, load: Load = Config.load_task
) -> Resumption:
    """The run in ``directory``, with the changes in ``options`` over those in ``file`` that a resumed run may have.

    Raises RunError if they describe another run, or an older tinyfl scaled the data differently.
    """
    saved = directory.config()
    if saved.older:
        new = shell("tinyfl", "simulate", directory.name / CONFIG, "--out", "ANOTHER")
        raise RunError(
            "an older tinyfl started this run, and scaled its data differently: it cannot be resumed. "
            f"Start a new run with its config: {new}"
        )
    chosen = {key: value for key, value in options.items() if value is not None}
    given = {**(read_settings(file) if file else {}), **renamed(chosen)}
    for each in saved.extensions:
        given[each.kind] = again(each, given.get(each.kind))
    wanted = resolve({**saved.as_options(), **given}, installed=True)
    wanted.demand_code()
    notes = [_moved(directory, key, saved, wanted) for key in FILES]
    wanted, learner = fitted(wanted, load)
    wanted, more = _with_rounds(directory, saved, wanted)
    for key, value in vars(wanted).items():
        before = getattr(saved, key)
        may = key in (*MAY_CHANGE, *ROUNDS) or (_is_path(key, value) and _is_path(key, before))
        if value != before and not may:
            raise RunError(
                f"the run was started with {key} {before!r} and cannot be resumed with {value!r}. "
                "Leave the option out, or start a new run with another --out."
            )
    return Resumption(saved, wanted, learner, tuple(filter(None, (*notes, more))))


def _with_rounds(directory: RunDirectory, saved: Config, wanted: Config) -> tuple[Config, str]:
    """``wanted``, with what its number of rounds was until now if a schedule depends on it; and a note on another number.

    Raises RunError if more rounds than it has are done, or rounds need what an aggregator remembered.
    """
    checkpoint = directory.checkpoint()
    done = checkpoint.state.round if checkpoint else 0
    if checkpoint and checkpoint.remembered and done < wanted.rounds:
        raise RunError(
            f"the aggregator {wanted.aggregator} remembers earlier rounds ({checkpoint.remembered}), and no checkpoint has "
            "that, so this run cannot be resumed. Start a new run with another --out. For momentum on the server that is "
            "resumed, give --outer-optimiser instead."
        )
    if checkpoint and (wanted.rounds, wanted.patience) != (saved.rounds, saved.patience):
        _demand_patience(checkpoint, saved, wanted)
    if wanted.rounds == saved.rounds:
        return replace(wanted, continued=saved.continued), ""
    if wanted.rounds < done:
        raise RunError(
            f"{done:,} rounds of this run are done, so it cannot be resumed with {wanted.rounds:,}. Give --rounds {done} or "
            "more, or start a new run with another --out."
        )
    continued = saved.continued
    new = not continued or continued[-1][0] < done  # else no round was done with the number that the run has now
    if done and new and _depends_on_rounds(wanted):
        continued = (*continued, (done, saved.rounds))
    note = f"rounds: {wanted.rounds:,} in all, instead of {saved.rounds:,}; {done:,} are done"
    return replace(wanted, continued=continued), note


def _depends_on_rounds(config: Config) -> bool:
    """Whether a schedule of the config's algorithm depends on the number of rounds. One that is not tinyfl's own counts if it
    has that number."""
    chosen = config.chosen("algorithm")
    if not chosen.built_in:
        return bool(chosen.takes("rounds"))
    few, many = (replace(config, rounds=rounds).build() for rounds in (2, 1000))
    alphas = [alpha(1) for alpha in map(alpha_of, (few, many)) if alpha]
    return few.inner(1) != many.inner(1) or len(set(alphas)) > 1


def _demand_patience(checkpoint: Checkpoint, saved: Config, wanted: Config) -> None:
    """Raises RunError if with the patience that is ``wanted`` the run would have stopped, or would stop at once."""
    if 0 < wanted.patience < (saved.patience or MAX_ROUNDS + 1):
        raise RunError(
            f"the run has patience {saved.patience or 'without end'}, and cannot be resumed with {wanted.patience}: it might "
            "have stopped already. Give more --patience, or 0 for no early stop; or start a new run with another --out."
        )
    if checkpoint.validation.stops(wanted.patience):
        raise RunError(
            f"the run stopped early after round {checkpoint.state.round:,}. To go on, give --patience more than "
            f"{wanted.patience} too, or 0 for no early stop."
        )


def restated(config: Config) -> list[str]:
    """Notes on the rounds at which the schedule of the config's algorithm was restated."""
    if not config.continued:
        return []
    totals = [*(total for _, total in config.continued[1:]), config.rounds]
    algorithms = [*(algorithm for _, algorithm in config.built_before()), config.build()]
    notes = []
    for (done, before), total, (old, new) in zip(config.continued, totals, pairwise(algorithms), strict=True):
        alphas = alpha_of(old), alpha_of(new)
        jump = ""
        if alphas[0] and alphas[1]:
            jump = f": the outer step is {alphas[0](done - 1):.3g} in round {done:,} and {alphas[1](done):.3g} in the next"
        notes.append(f"schedule: restated after round {done:,} over {total:,} rounds instead of {before:,}{jump}")
    return notes


def _is_path(key: str, value: Any) -> bool:
    """Whether the setting ``key`` with this value is a file."""
    return key in FILES and bool(value) and (key != "network" or is_file(value))


def _moved(directory: RunDirectory, key: str, saved: Config, wanted: Config) -> str:
    """A note if the file ``key`` is at another path than before; empty if not.

    Raises RunError if it is another file.
    """
    before, now = getattr(saved, key), getattr(wanted, key)
    if not (_is_path(key, before) and _is_path(key, now)) or Path(now).resolve() == Path(before):
        return ""
    try:
        found = FILES[key](wanted)
    except OSError:  # whoever reads it says what is wrong
        return ""
    checkpoint = directory.checkpoint()
    if checkpoint is None:
        return f"{key}: {plain(now)} instead of {plain(before)}, from the first round: none is saved yet"
    expected = getattr(checkpoint, f"{key}_sha256")
    if found != expected:
        devices = ("--devices", "0") if key == "data" else ()  # as many as the other file has
        new = shell("tinyfl", "run", directory.name / CONFIG, *saved.words, f"--{key}", now, *devices, "--out", "ANOTHER")
        raise RunError(
            f"{now} is not the {key} file that the run was started with: its SHA-256 is {found[:16]}…, and that of "
            f"{before} was {expected[:16]}…. Give --{key} a copy of that file, or start a new run with this one: {new}"
        )
    return f"{key}: {plain(now)} has the very bytes of {plain(before)}, which the run was started with"
