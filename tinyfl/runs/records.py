"""What the files of a run directory hold. A directory may be a stranger's, so they are checked as they are read.

Keys that this version does not know are kept, and whoever shows them must not trust them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, Json, StringConstraints, ValidationError, model_validator

from tinyfl.core import LIMIT
from tinyfl.errors import RunError
from tinyfl.errors.words import problem
from tinyfl.runs.evaluation import LEADING_STEPS, NEAREST_MEAN

MAX_PROBLEMS = 3
"""Of a file, that are told."""

MOST = 1e150
"""No loss comes near it, in whatever unit."""

Count = Annotated[int, Field(ge=0, lt=1 << 96)]
Some = Annotated[int, Field(ge=1, lt=1 << 96)]
Number = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, lt=LIMIT, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileHash = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
"""Empty where there is no file."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class Reached(_Record):
    """A row of the evaluation (tinyfl.runs.evaluation.Row)."""

    mode: Literal["batch", "stream"]
    shots: Some
    steps: Count
    adapt_lr: Rate
    loss: Number | None
    loss_ci95: Number | None
    accuracy: Share | None
    accuracy_ci95: Number | None
    tasks: Some


class Floor(_Record):
    """What a method without a network reaches: an accuracy, or the loss of the support mean."""

    shots: Some
    method: str = NEAREST_MEAN
    accuracy: Share | None
    accuracy_ci95: Number | None
    loss: Number | None = None
    loss_ci95: Number | None = None
    tasks: Some


class OneBoard(_Record):
    board: str = "at a port"


class Result(_Record):
    """result.json (tinyfl.simulation)."""

    task: str
    algorithm: str
    network: str
    parameters: Some
    devices: Some
    cohort: Some
    rounds: Some
    device_rounds: Some
    device_rounds_per_s: Number
    seconds: Number
    sample_gradients: Some
    seed: Count
    bytes_down: Count
    bytes_up: Count
    device_ram_bytes: Some
    start: str = "random start"
    notes: list[str] = []
    left_out: dict[str, Count]
    failed: dict[str, str] = {}
    privacy: dict[str, Any] | None = None
    boards: list[OneBoard] = []
    theta_sha256: Hash
    config_sha256: Hash
    evaluation: list[Reached]
    baseline: list[Reached]
    floor: list[Floor]
    worse_than_floor: list[Floor] = []
    verdict: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> "Result":
        learnt, random = ([(row.mode, row.shots, row.steps) for row in rows] for rows in (self.evaluation, self.baseline))
        if learnt != random:
            raise ValueError("evaluation and baseline do not have the same rows")
        if not any((mode, steps) == ("batch", LEADING_STEPS) for mode, _, steps in learnt):
            raise ValueError(f"evaluation has no row of mode batch and {LEADING_STEPS} steps")
        return self


class Round(_Record):
    """A line of rounds.jsonl."""

    round: Count


class Metric(Round):
    """A line of metrics.jsonl. ``loss`` is null where it is not finite."""

    loss: Number | None


class Point(_Record):
    """The numbers and texts of a checkpoint."""

    round: Count
    config_sha256: Hash
    data_sha256: FileHash
    network_sha256: FileHash
    left_out: Json[dict[str, Count]]
    seconds: Number


class Saved(_Record):
    """The numbers and texts of an initialisation. ``config_sha256`` is empty where an adaptation wrote it."""

    network: str
    task: str
    clip: Number
    adapt_lr_batch: Rate
    adapt_lr_stream: Rate
    config_sha256: FileHash = ""


class Made(_Record):
    """What run an initialisation is of."""

    seed: Count
    config_sha256: Hash


Kind = TypeVar("Kind", bound=_Record)


def values(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Arrays of a single value as that value; of others the shape, which is right in no record."""
    return {name: array.shape or array.item() for name, array in arrays.items()}


def checked(kind: type[Kind], content: bytes | dict[str, Any], path: Path, cure: str) -> Kind:
    """The ``content`` of the file at ``path``, JSON or a table, as a record of this ``kind``.

    Raises RunError with what is wrong with it, by name, and the ``cure``.
    """
    try:
        return kind.model_validate(content) if isinstance(content, dict) else kind.model_validate_json(content)
    except ValidationError as error:
        wrong = [problem(each) for each in error.errors(include_url=False)]
        more = f"; and {len(wrong) - MAX_PROBLEMS:,} more" if len(wrong) > MAX_PROBLEMS else ""
        raise RunError(f"{path} is damaged: {'; '.join(wrong[:MAX_PROBLEMS])}{more}. {cure}") from error
