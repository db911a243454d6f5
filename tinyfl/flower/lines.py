"""What the lines of a node's boards carried in a round, as a ConfigRecord of its reply.

Readings change no theta, so an unreadable record is none.
"""

import json
from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, RecordDict
from pydantic import TypeAdapter, ValidationError

from tinyfl.fleet import Carried
from tinyfl.runs.records import LineRecord, Part

LINE = "line"
"""The ConfigRecord of what lines carried."""

MAX_JSON = 2000
"""Maximum length of its JSON, in characters."""

_PARTS = TypeAdapter(dict[Part, LineRecord])


def as_json(carried: Mapping[str, Carried]) -> dict[str, dict[str, Any]]:
    """What lines carried as plain data, for logs and records."""
    return {part: LineRecord.of(each).model_dump() for part, each in carried.items()}


def line_record(carried: Mapping[str, Carried]) -> ConfigRecord:
    """The record of what a node's lines carried."""
    return ConfigRecord({"json": json.dumps(as_json(carried))})


def read_line(content: RecordDict) -> dict[str, Carried]:
    """Reads what a node's lines carried from its reply; nothing from an invalid record."""
    said: Any = content.config_records.get(LINE) or {"json": "{}"}
    try:
        text = str(said["json"])
        found = _PARTS.validate_json(text) if len(text) <= MAX_JSON else {}
    except (KeyError, ValidationError):
        return {}
    return {part: each.carried() for part, each in found.items()}
