"""A board's online learning, from firmware/SPEC.md alone: a head over the learner's network. The arena has room for any set."""

import struct
from hashlib import sha256
from typing import Any

import numpy as np
import reference
from double_program import HASH, INVALID, NUMERIC, STALE, STATE, Refuse
from reference_online import CLASSES, EMBEDDINGS, LABELS, Online, Refused, Set

MEMORY, HEADER, RECORD = 4, 44, 92
REFUSALS = {-1: INVALID, -4: NUMERIC, -11: MEMORY, -12: STATE, -13: STALE}


class Blocks:
    """An upload in blocks."""

    def __init__(self) -> None:
        self.coming, self.length, self.sha = b"", 0, b""

    def add(self, off: int, data: bytes, length: int, sha: bytes) -> bytes | None:
        """The whole, once it is there."""
        if off == 0 and (length < 1 or len(sha) != 32):
            raise Refuse(INVALID)
        if off == 0 and (length, sha) != (self.length, self.sha):
            self.coming, self.length, self.sha = b"", length, sha
        if off != len(self.coming) or len(self.coming) == self.length:
            return None
        self.coming += data
        if len(self.coming) < self.length:
            return None
        if sha256(self.coming).digest() != self.sha:
            self.__init__()  # type: ignore[misc]
            raise Refuse(HASH)
        return self.coming


class OnlineLearning:
    """The set of a double ``board``; ``kept`` is what outlives its power."""

    def __init__(self, board: Any) -> None:
        self.board, self.kept, self.commits = board, None, 0
        self.drop()

    def drop(self) -> None:
        self.record, self.back, self.coming = Blocks(), Blocks(), Blocks()
        self.online: Online | None = None
        self.x, self.names, self.said, self.last = b"", list[str](), dict[str, Any](), dict[str, Any]()

    def put(self, off: int, data: bytes, len: int = 0, sha: bytes = b"") -> dict[str, Any]:
        if len > RECORD:
            raise Refuse(INVALID)
        record = self.record.add(off, data, len, sha)
        if record is not None:
            self.start(record)
        return {"off": self.record.coming.__len__()}

    def start(self, record: bytes) -> None:
        stage, outputs, _, of = struct.unpack("<3I32s", record[:HEADER])
        head, standardised, embedded, unsure, *rest = struct.unpack("<4B6I5f", record[HEADER:])
        if stage or not embedded:
            raise Refuse(INVALID)
        if not self.board.has_weights():
            raise Refuse(STATE)
        if sha256(self.board.here()).digest() != of:
            raise Refuse(STALE)
        self.of, self.online = of, Online(Set(head, standardised, embedded, *rest, unsure), outputs)
        self.names = [""] * outputs
        self.board.classes.drop()

    @property
    def drifts(self) -> int:
        return self.online.alarms if self.online else 0

    @property
    def wanted(self) -> int:
        return self.online.wanted if self.online else 0

    def here(self) -> Online:
        if self.online is None:
            raise Refuse(STATE)
        return self.online

    def list(self, first: int) -> dict[str, Any]:
        o = self.online
        if o is None:
            o, sha = Online(Set(places=1, inputs=1, size=1), 0), b""
        else:
            sha = self.record.sha
        listed = o.n if o.set.head in (CLASSES, LABELS) else 0
        return {
            "set": sha, "record": bytes(self.record.coming) if sha else b"",
            "samples": o.number, "labels": o.measured, "confidence": float(o.confidence), "error": float(o.error),
            "drifts": o.alarms, "drifted": o.alarmed, "wanted": o.wanted, "source": "", "code": 0,
            "outputs": o.n, "places": o.set.places if sha else 0, "next": o.n,
            "counts": o.counts[first:listed], "names": self.names[first:listed],
        }  # fmt: skip

    def sample(self, number: int, off: int, data: bytes) -> dict[str, Any]:
        o, whole = self.here(), 4 * self.here().set.inputs
        if o.number and number == o.number - 1 and self.said:
            return {"off": whole, **self.said}
        if number != o.number or sha256(self.board.here()).digest() != self.of:
            raise Refuse(STALE)
        self.x = b"" if off == 0 else self.x
        if off == len(self.x):
            if off + len(data) > whole:
                raise Refuse(INVALID)
            self.x += data
        if len(self.x) < whole:
            return {"off": len(self.x)}
        learner = reference.Learner(self.board.layers, self.board.loss_kind, self.board.theta)
        try:
            x, late = np.frombuffer(self.x, "<f4").copy(), o.set.standardised == EMBEDDINGS
            z = x if late else o.enter(x)
            e = learner.forward(z)[-1]
            found, label, sure, score, learnt = o.sample(o.enter(e) if late else e, z)
        except Refused as refused:
            raise Refuse(REFUSALS[refused.code]) from refused
        name = self.names[label] if o.set.head == CLASSES else ""
        self.said = {
            "number": found, "label": label, "confidence": float(sure), "score": float(score), "learnt": learnt, "name": name,
        }  # fmt: skip
        self.x = b""
        return {"off": whole, **self.said}

    def label(self, sample: int, **answer: Any) -> dict[str, Any]:
        o = self.here()
        if self.last.get("asked") == (sample, answer):
            return dict(self.last["reply"])
        try:
            if (label := answer.get("label")) is not None:
                loss = o.label(sample, label)
                self.names += [""] * (o.n - len(self.names))
                self.names[label] = answer.get("name", self.names[label])
            else:
                loss = o.target(sample, np.frombuffer(answer["data"], "<f4"))
        except Refused as refused:
            raise Refuse(REFUSALS[refused.code]) from refused
        self.last = {"asked": (sample, answer), "reply": {"outputs": o.n, "loss": float(loss)}}
        return dict(self.last["reply"])

    def forget(self, number: int | None = None, outputs: int = 0) -> dict[str, Any]:
        if number is None:
            self.drop()
            return {"outputs": 0}
        o = self.here()
        if outputs != o.n:
            raise Refuse(STALE)
        try:
            o.remove(number)
        except Refused as refused:
            raise Refuse(REFUSALS[refused.code]) from refused
        del self.names[number]
        return {"outputs": o.n}

    def learnt(self, off: int) -> dict[str, Any]:
        held = self.here().learnt
        return {"off": off, "len": len(held), "data": held[off : off + self.board.buffer - 64]}

    def put_back(self, off: int, data: bytes, len: int = 0, sha: bytes = b"") -> dict[str, Any]:
        o = self.here()
        learnt = self.back.add(off, data, len, sha)
        if learnt is not None and learnt != o.learnt:
            raise Refuse(INVALID)  # a double puts back what it has
        return {"off": self.back.coming.__len__()}

    def here_head(self) -> bytes:
        named = self.here().set.head in (CLASSES, LABELS)
        return b"".join(name.encode().ljust(16, b"\0") for name in self.names if named) + self.here().w.astype("<f4").tobytes()

    def head(self, off: int) -> dict[str, Any]:
        held = self.here_head()
        return {"off": off, "len": len(held), "data": held[off : off + self.board.buffer - 64]}

    def put_head(self, off: int, data: bytes, len: int = 0, sha: bytes = b"") -> dict[str, Any]:
        head = self.coming.add(off, data, len, sha)
        if head is not None and head != self.here_head():
            raise Refuse(INVALID)  # as put_back
        return {"off": self.coming.coming.__len__()}

    def listen(self, source: str, samples: int, labels: int) -> dict[str, Any]:
        if source:
            raise Refuse(STATE)  # a double has no sensor
        return {"samples": self.here().number}

    def commit(self) -> dict[str, Any]:
        held = self.record.sha, self.here().learnt, tuple(self.names)
        self.commits += held != self.kept
        self.kept = held
        return {"commits": self.commits}

    def roll_back(self) -> dict[str, Any]:
        if self.kept is None or self.kept[1] != self.here().learnt:
            raise Refuse(STATE)
        return {"samples": self.here().number}
