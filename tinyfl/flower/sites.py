"""Sites with data of their own, from the coordinator: what it asks them before the first round, and their evaluation.

Questions and answers are JSON in one ConfigRecord, so that everybody can read what leaves a site: the names of devices, inputs
and classes, the numbers of samples, and sums. The first answers are in tinyfl.tasks.sites, measurements in tinyfl.runs.moments.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Error, MessageType, RecordDict
from flwr.serverapp import Grid

from tinyfl import __version__
from tinyfl.config import Config
from tinyfl.core import F32
from tinyfl.data.reading import read_table
from tinyfl.data.words import named
from tinyfl.errors import ConfigError, Corrupt, DataError, TrainingError
from tinyfl.errors.words import plain
from tinyfl.flower.ipc import ANSWER_SECONDS, ASK
from tinyfl.flower.messages import NETWORK, SAME_VERSION, VERSION, Trouble, corrupt, network_record, theta_record
from tinyfl.flower.remote import GRACE_SECONDS, LOOK_SECONDS, ROLL_SECONDS, Note, Post, RemoteNode
from tinyfl.flower.sites_task import Case, Row, Site, SitesTask, read_answer, read_rows
from tinyfl.networks import Network
from tinyfl.runs.hashes import theta_sha256
from tinyfl.tasks import Task
from tinyfl.tasks.agreement import Agreement, agree, means, standardised
from tinyfl.tasks.sites import USES, First, Roll, Second, Share, SiteData

SAID, SHARE = "said", "share"
"""ConfigRecords of a site's answer, and of what the sites have agreed on."""

COORDINATOR = "the coordinator"


def record(said: Mapping[str, Any]) -> ConfigRecord:
    """A record of plain data."""
    return ConfigRecord({"json": json.dumps(said, ensure_ascii=False)})


def read_record(content: RecordDict, name: str) -> dict[str, Any] | None:
    """The plain data of the record ``name``; None without one.

    Raises Corrupt for anything else.
    """
    with corrupt(f"the record {name}"):
        held: Any = content.config_records.get(name)
        return None if held is None else dict(json.loads(str(held["json"])))


class Sites:
    """Asks the nodes of a grid."""

    def __init__(self, grid: Grid, on_note: Note) -> None:
        self._grid, self._post, self._note = grid, Post(grid), on_note

    def rolls(self, targets: str, wanted: int, within: float) -> dict[int, Roll | None]:
        """What each connected node says of its data, by node; None for a node without data of its own. Waits until at least
        ``wanted`` have answered.

        Raises DataError for a node that cannot serve its data, TrainingError if too few answer.
        """
        deadline, answered = time.monotonic() + within, dict[int, Roll | None]()
        trouble: dict[int, str] = {}
        said = -1
        while True:
            question = RecordDict(
                {"config": ConfigRecord({VERSION: __version__}), ASK: record({"what": "roll", "targets": targets})}
            )
            asked = dict.fromkeys([node for node in self._grid.get_node_ids() if node not in answered], question)
            until = min(deadline, time.monotonic() + GRACE_SECONDS)
            for node, content in self._post.exchange(asked, MessageType.QUERY, until).items():
                if isinstance(content, Error):
                    if content.code == Trouble.failed:
                        raise DataError(plain(content.reason, 1000))
                    trouble.setdefault(node, str(content.reason))
                    continue
                try:
                    answered[node] = _read_roll(content)
                except Corrupt as error:
                    trouble[node] = f"{error} {SAME_VERSION}"
            if len(answered) >= wanted:
                return answered
            who = named([roll.site for roll in answered.values() if roll]) or "none"
            left = deadline - time.monotonic()
            if len(answered) != said and left > 0:
                said = len(answered)
                self._note(
                    f"{said} of {wanted} sites have answered: {who}. The run waits for the others, for at most {left:.0f} s"
                )
            if left <= 0:
                why = "".join(f" Node {node}: {text}" for node, text in trouble.items() if node not in answered)
                raise TrainingError(
                    f"{len(answered)} of {wanted} sites have answered after {within:g} s: {who}.{why} Start their gateways "
                    "(tinyfl gateway), or give --nodes the number of sites."
                )
            time.sleep(LOOK_SECONDS)

    def ask(self, questions: Mapping[int, RecordDict], read: Callable[[Any], Any], names: Mapping[int, str]) -> dict[int, Any]:
        """The answer of each node to its question, as ``read`` reads it.

        Raises DataError with the name of a site that cannot answer, TrainingError for one that does not.
        """
        deadline, answers = time.monotonic() + ANSWER_SECONDS, dict[int, Any]()

        def on_wait(nodes: Sequence[int], left: float) -> None:
            self._note(f"waits for {named([names[node] for node in nodes])}, for at most {left:.0f} s")

        for node, content in self._post.exchange(questions, MessageType.QUERY, deadline, on_wait).items():
            if isinstance(content, Error):
                if content.code == Trouble.failed:
                    raise DataError(plain(content.reason, 1000))
                raise TrainingError(
                    f"{names[node]} does not answer ({plain(content.reason)}). Start its gateway again, then go on with "
                    "the run."
                )
            with _named_errors(names[node]):
                answers[node] = read(read_record(content, SAID))
        return answers


@contextmanager
def _named_errors(site: str) -> Iterator[None]:
    """Turns any exception from reading a site's answer into a TrainingError that names it."""
    try:
        yield
    except Exception as error:
        raise TrainingError(
            f"{site}'s answer cannot be read ({type(error).__name__}: {plain(error, 100)}). {SAME_VERSION}"
        ) from error


def _read_roll(content: RecordDict) -> Roll | None:
    with corrupt("the answer about a site's data"):
        said = read_record(content, SAID)
        if said is None or "site" not in said:
            return None  # a node without data of its own
        roll = Roll.from_json(said)
        return replace(roll, site=plain(roll.site, 40) or "a site without a name")


def load_over(grid: Grid, config: Config, within: float = ROLL_SECONDS, on_note: Note = lambda note: None) -> Task:
    """The config's task: of the sites with data of their own, if the grid's nodes are such, else from the config's file.

    Raises ConfigError or DataError where data do not belong together, with the names of the sites.
    """
    if not config.own_data or config.episodes or not config.chosen("task").built_in:
        return config.load_task()
    sites = Sites(grid, on_note)
    answered = sites.rolls(config.targets, config.gateways or 1, within)
    rolls = {node: roll for node, roll in answered.items() if roll}
    if not rolls:
        return config.load_task()
    own = _own(config)
    if own and all(roll.digest == own.digest for roll in rolls.values()):
        return config.load_task()  # copies of one file
    if len(rolls) < len(answered):
        raise ConfigError(
            f"{named([roll.site for roll in rolls.values()])} brings data of its own, and {len(answered) - len(rolls)} other "
            "nodes do not. Give each gateway a file of its own: data = in its --fleet file."
        )
    return agreed_task(sites, _with_names(rolls), config, own)


def _own(config: Config) -> SiteData | None:
    """The coordinator's own data."""
    if not config.data:
        return None
    return SiteData(COORDINATOR, read_table(Path(config.data), config.reading), config.reading, bool(config.standardise))


def _with_names(rolls: Mapping[int, Roll]) -> dict[int, Roll]:
    """The rolls, with the first device's name added to names of sites that occur twice."""
    names = Counter(roll.site for roll in rolls.values())
    return {
        node: replace(roll, site=f"{roll.site} ({plain(roll.devices[0], 40)} ...)") if names[roll.site] > 1 else roll
        for node, roll in rolls.items()
    }


def agreed_task(sites: Sites, rolls: Mapping[int, Roll], config: Config, own: SiteData | None) -> SitesTask:
    """The task of the sites in ``rolls`` and of the coordinator's ``own`` held-out devices, once all agree."""
    held = own.roll(config.targets) if own else None
    least = max(config.shots) + 1 if config.reading.drop_small else 0
    agreed = agree(list(rolls.values()), config.seed, held, least)
    shares = {node: agreed.share(roll) for node, roll in rolls.items()}
    names = {node: roll.site for node, roll in rolls.items()}

    def passed(read: Callable[[Any], Any], **ask: Any) -> dict[str, Any]:
        questions = {node: _question(share, **ask) for node, share in shares.items()}
        return {names[node]: answer for node, answer in sites.ask(questions, read, names).items()}

    if config.gateways is None and (alone := [roll.site for roll in rolls.values() if not roll.shares]):
        raise ConfigError(
            f"{named(alone)} sends sums alone, and --nodes devices needs each device's update. Leave it out, or start those "
            "gateways with --share-devices."
        )
    first: dict[str, First] = passed(First.from_json, what="first")
    second: dict[str, Second] = {}
    if config.standardise:
        mean, target_mean = means(first)
        second = passed(Second.from_json, what="second", mean=mean.tolist(), target_mean=target_mean.tolist())
    standard = standardised(agreed, first, second, bool(config.standardise))
    standard = replace(standard, notes=(*_notes(rolls, shares, agreed, held, config), *standard.notes))
    told = {node: replace(share, standard=standard) for node, share in shares.items()}
    here = own.task(replace(agreed.share(held), standard=standard), config.seed) if own and held else None
    members = tuple(Site(node, rolls[node], share, record(share.to_json())) for node, share in told.items())

    shared: list[Row] = []

    def measure(asked: Sequence[Site], cases: Sequence[Case], network: Network, theta: F32 | None) -> list[Any]:
        arrays = {} if theta is None else {"arrays": theta_record(theta)}
        weights = "" if theta is None else theta_sha256(theta)[:8]
        ask = {"config": ConfigRecord(), ASK: record({"what": "measure", "cases": cases}), NETWORK: network_record(network)}
        questions = {site.node: RecordDict({**ask, **arrays, SHARE: site.record}) for site in asked}

        def read(said: Any) -> tuple[list[Any], Any]:
            parts = [read_answer(each, case, network) for each, case in zip(said["cases"], cases, strict=True)]
            return parts, read_rows(said.get("devices", ()), weights)

        answers = sites.ask(questions, read, names)
        for node, (_, rows) in answers.items():
            shared.extend({"site": names[node], **row} for row in rows)
        return [parts for parts, _ in answers.values()]

    return SitesTask(agreed, standard, members, here, measure, shared)


def nodes_of(task: SitesTask) -> tuple[RemoteNode, ...]:
    """The nodes with devices that train."""
    sites = [site for site in task.sites if len(site.devices)]
    return tuple(RemoteNode(site.node, site.roll.site, site.devices, (), {SHARE: site.record}) for site in sites)


def _question(share: Share, **ask: Any) -> RecordDict:
    return RecordDict({"config": ConfigRecord(), ASK: record(ask), SHARE: record(share.to_json())})


def _notes(
    rolls: Mapping[int, Roll], shares: Mapping[int, Share], agreed: Agreement, held: Roll | None, config: Config
) -> list[str]:
    """What the first lines of a run say of its sites."""
    everyone = sorted(((roll, shares[node]) for node, roll in rolls.items()), key=lambda each: each[0].site)
    words = [
        f"{roll.site} {len(roll.devices):,} devices, {roll.counts.sum():,} samples"
        for roll in [*(roll for roll, _ in everyone), *([held] if held else [])]
    ]
    uses = ", ".join(f"{len(agreed.members[use]):,} {word}" for use, word in WORDS.items())
    notes = [f"sites: {'; '.join(words)}", f"devices: {uses}; samples stay at their sites, which send sums"]
    by_site = {roll.site: share for roll, share in everyone}
    trains = {site: len(share.devices("train")) for site, share in by_site.items()}
    fleet = config.devices or sum(trains.values())
    cohort = min(config.cohort, fleet)
    alone = [site for site, own in trains.items() if own and max(0, cohort - (fleet - own)) <= 1 <= min(cohort, own)]
    if alone:
        notes.append(
            f"privacy: with a cohort of {cohort:,}, {named(alone)} may have one device in a round, whose update is then the "
            "site's sum. A larger --cohort makes that rarer."
        )
    return notes + _alone(by_site)


def _alone(shares: Mapping[str, Share]) -> list[str]:
    """A word on each site with one device for a use, whose sums are that device's."""
    return [
        f"privacy: {site} has one device that {ONE[use]}: the sums that it sends are that device's"
        for site, share in shares.items()
        for use in USES
        if len(share.devices(use)) == 1
    ]


WORDS = {"train": "train", "validation": "choose adaptation rates", "test": "are for testing"}
ONE = {"train": "trains", "validation": "chooses adaptation rates", "test": "is for testing"}
