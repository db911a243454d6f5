"""Schemas of the files in a run directory, checked on reading, since a directory may come from a stranger.

Unknown keys are kept but unchecked: do not trust them when showing them.
"""

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite, nan
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, Json, StringConstraints, ValidationError, model_validator

from tinyfl.core import LIMIT
from tinyfl.errors import RunError
from tinyfl.errors.words import problem
from tinyfl.fleet import Carried
from tinyfl.runs.evaluation import LEADING_STEPS
from tinyfl.runs.floors import NEAREST_MEAN

MAX_PROBLEMS = 3
"""Maximum number of problems listed per file."""

MAX_LOSS = 1e150
"""Upper bound of a loss in any unit."""

Count = Annotated[int, Field(ge=0, lt=1 << 96)]
Positive = Annotated[int, Field(ge=1, lt=1 << 96)]
Number = Annotated[float, Field(ge=0, le=MAX_LOSS, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, lt=LIMIT, allow_inf_nan=False)]
RateOrNone = Annotated[float, Field(ge=0, lt=LIMIT, allow_inf_nan=False)]
"""0 where devices adapt by class means."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileHash = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
"""Empty without a file."""
Spans = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}(-[0-9]{1,10})?(,[0-9]{1,10}(-[0-9]{1,10})?)*$")]
"""Of devices (tinyfl.fleet.spans)."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class LabelScoresRecord(_Record):
    """The scores of labels (tinyfl.runs.multilabel.LabelScores); null where there are none."""

    macro_ap: Share | None = None
    macro_ap_ci95: Number | None = None
    micro_ap: Share | None = None
    macro_ap_200: Share | None = None
    micro_ap_200: Share | None = None
    macro_precision: Share | None = None
    macro_recall: Share | None = None
    macro_f1_flair: Share | None = None
    macro_f1_sklearn: Share | None = None
    micro_precision: Share | None = None
    micro_recall: Share | None = None
    micro_f1: Share | None = None
    labels_seen: Count | None = None
    answered: Count | None = None


class EvaluationRow(LabelScoresRecord):
    """A row of the evaluation (tinyfl.runs.evaluation.Row)."""

    mode: Literal["batch", "stream", "means"]
    shots: Positive
    steps: Count
    adapt_lr: Rate | None
    loss: Number | None
    loss_ci95: Number | None
    accuracy: Share | None
    accuracy_ci95: Number | None
    tasks: Positive
    mae: Number | None = None
    mae_ci95: Number | None = None
    r2: Annotated[float, Field(le=1, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _has_a_rate_unless_by_class_means(self) -> Self:
        if (self.adapt_lr is None) != (self.mode == "means"):
            raise ValueError(f"adapt_lr is {self.adapt_lr}, and mode {self.mode}")
        return self


class FloorRow(LabelScoresRecord):
    """A row of the floor: the accuracy of a method without a network, or the loss of the support mean."""

    shots: Positive
    method: str = NEAREST_MEAN
    accuracy: Share | None
    accuracy_ci95: Number | None
    loss: Number | None = None
    loss_ci95: Number | None = None
    tasks: Positive


class ValidationRow(_Record):
    """An evaluation on validation devices after a round (tinyfl.runs.validation): the mean loss, null if a device diverged;
    all are null if every rate does. ``deviation`` is the standard deviation over the ``devices``: of accuracy, for values of
    the loss. An older tinyfl did not write the last three."""

    round: Positive
    adapt_lr: RateOrNone | None
    loss: Number | None
    accuracy: Share | None
    deviation: Number | None = None
    devices: Positive | None = None
    sample_gradients: Positive | None = None


class Figures(_Record):
    loss: Number | None
    accuracy: Share | None


class DeviceRow(_Record):
    """A test device's result before and after adaptation (tinyfl.runs.per_device)."""

    device: str
    draws: Positive
    before: Figures
    after: Figures


class PerDevice(_Record):
    """The worst of ``number`` test devices, or all."""

    shots: Positive
    steps: Count
    number: Positive
    devices: list[DeviceRow]


class Confusion(_Record):
    """How often a sample of each class (row) was taken for each (column)."""

    shots: Positive
    steps: Count
    classes: list[str]
    counts: list[list[Count]]

    @model_validator(mode="after")
    def _is_square(self) -> "Confusion":
        if {len(self.counts), *map(len, self.counts)} != {len(self.classes)}:
            raise ValueError("counts is not a row and a column for each class")
        return self


class BoardRecord(_Record):
    board: str = "at a port"


Part = Literal["find", "down", "learn", "up"]
"""tinyfl.fleet.PARTS."""


class LineRecord(_Record):
    """What boards' lines carried in a part of their rounds (tinyfl.fleet.Carried); ``at_rate`` is null if one has no rate."""

    times: Count
    sent: Count
    received: Count
    seconds: Number
    at_rate: Number | None

    @classmethod
    def of(cls, carried: Carried) -> Self:
        at_rate = round(carried.at_rate, 4) if isfinite(carried.at_rate) else None
        values = asdict(carried) | {"seconds": round(carried.seconds, 4), "at_rate": at_rate}
        return cls(**values)

    def carried(self) -> Carried:
        at_rate = nan if self.at_rate is None else self.at_rate
        return Carried(self.times, self.sent, self.received, self.seconds, at_rate)


class BothWays(_Record):
    """Bytes to devices and from them."""

    down: Count
    up: Count


class StalenessRecord(_Record):
    """How stale the updates of a kind of device were (tinyfl.flower.staleness)."""

    kind: str
    devices: Positive
    arrivals: Count
    left_out: Count
    weight: Number
    staleness: dict[Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], Count]


class Result(_Record):
    """result.json (tinyfl.simulation)."""

    task: str
    algorithm: str
    network: str
    parameters: Positive
    devices: Positive
    cohort: Positive
    rounds: Positive
    device_rounds: Positive
    device_rounds_per_s: Number
    seconds: Number
    sample_gradients: Positive
    seed: Count
    bytes_down: Count
    bytes_up: Count
    line_bytes_down: Count = 0
    """On the line, with messages and frames; those above are of weights alone. An older tinyfl did not write it."""
    line_bytes_up: Count = 0
    line_bytes_by_part: dict[Part, BothWays] = {}
    """Those of them in each part of a round. An older tinyfl wrote neither this nor the next four."""
    line_bytes_new: Count = 0
    """Those due to devices that got theta whole where others got its change."""
    line_bytes_fp32: Count = 0
    """Those of the same rounds if all weights had gone as float32."""
    line: dict[Part, LineRecord] = {}
    """What the lines of boards carried, as measured; empty without boards."""
    local: list[str] = []
    """The layers that stay on each device."""
    staleness: list[StalenessRecord] = []
    """Of an asynchronous run; an older tinyfl did not write it, nor the next."""
    virtual_time: Number | None = None
    """That of the last arrival; null on real clocks."""
    device_ram_bytes: Positive
    samples_held: Positive = 1
    start: str = "random start"
    notes: list[str] = []
    classes: list[str] = []
    left_out: dict[str, Count]
    failed: dict[str, str] = {}
    privacy: dict[str, Any] | None = None
    shots_of: Literal["class", "device"] = "device"
    boards: list[BoardRecord] = []
    theta_sha256: Hash
    config_sha256: Hash
    tinyfl: str = ""
    """The version that finished the run. An older one did not write it."""
    evaluation: list[EvaluationRow]
    baseline: list[EvaluationRow]
    floor: list[FloorRow]
    worse_than_floor: list[FloorRow] = []
    validation: list[ValidationRow] = []
    best_round: Positive | None = None
    # Where an older tinyfl wrote none, there are none: a default is no part of the JSON.
    per_device: PerDevice = Field(default_factory=PerDevice.model_construct)
    confusion: Confusion = Field(default_factory=Confusion.model_construct)
    verdict: str = ""

    @model_validator(mode="after")
    def _is_complete(self) -> "Result":
        rows_after, rows_baseline = (
            [(row.mode, row.shots, row.steps) for row in rows] for rows in (self.evaluation, self.baseline)
        )
        if rows_after != rows_baseline:
            raise ValueError("evaluation and baseline do not have the same rows")
        if not any(mode == "means" or (mode, steps) == ("batch", LEADING_STEPS) for mode, _, steps in rows_after):
            raise ValueError(f"evaluation has no row of mode means, or of mode batch and {LEADING_STEPS} steps")
        return self


class Round(_Record):
    """A line of rounds.jsonl."""

    round: Count


class RoundRecord(Round):
    """The same, with what metrics.jsonl follows from. ``loss`` is the devices' mean, null if it is not finite; an older tinyfl
    did not write it. ``line`` is empty without boards."""

    loss: Number | None = None
    counts: bool
    absent: dict[str, Spans]
    line: dict[Part, LineRecord] = {}


class ArrivalsRecord(RoundRecord):
    """The same of an asynchronous round: the device and the version that it started from, of each arrival in order, and the
    virtual time of the last; null on real clocks."""

    arrivals: list[tuple[Count, Count]]
    time: Number | None


class Metric(Round):
    """A line of metrics.jsonl. ``loss`` is null if it is not finite."""

    loss: Number | None


class CheckpointRecord(_Record):
    """The numbers and texts of a checkpoint."""

    round: Count
    config_sha256: Hash
    data_sha256: FileHash
    network_sha256: FileHash
    left_out: Json[dict[str, Count]]
    seconds: Number
    run: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    next_sha256: FileHash = ""
    sites_sha256: FileHash = ""
    remembered: str = ""
    validation: Json[list[ValidationRow]] = []


class InitialisationRecord(_Record):
    """The numbers and texts of an initialisation. ``config_sha256`` is empty in one that an older tinyfl adapted;
    ``adaptation`` names an algorithm with one of its own, and ``local`` the layers that stay on each device."""

    network: str
    task: str
    clip: Number
    adapt_lr_batch: RateOrNone
    adapt_lr_stream: RateOrNone
    config_sha256: FileHash = ""
    adaptation: str = ""
    normalised: bool = False
    augmented: bool = False
    local: str = ""


class Provenance(_Record):
    """The run of an initialisation."""

    seed: Count
    config_sha256: Hash


Kind = TypeVar("Kind", bound=_Record)


def values(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Scalar arrays as their values; other arrays as their shape, which no record accepts."""
    return {name: array.shape or array.item() for name, array in arrays.items()}


def checked(kind: type[Kind], content: bytes | dict[str, Any], path: Path, cure: str) -> Kind:
    """Parses the ``content`` of the file at ``path``, JSON or a table, as a record of this ``kind``.

    Raises RunError with the invalid keys and the ``cure``.
    """
    try:
        return kind.model_validate(content) if isinstance(content, dict) else kind.model_validate_json(content)
    except ValidationError as error:
        problems = [problem(each) for each in error.errors(include_url=False)]
        more = f"; and {len(problems) - MAX_PROBLEMS:,} more" if len(problems) > MAX_PROBLEMS else ""
        raise RunError(f"{path} is damaged: {'; '.join(problems[:MAX_PROBLEMS])}{more}. {cure}") from error
