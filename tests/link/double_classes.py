"""A board's classes, from firmware/SPEC.md alone. The arena has room for any set."""

import struct
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np
import reference
from double_program import HASH, INVALID, NUMERIC, STALE, STATE, Refuse
from reference_means import Means

LEARNER, HEADER, PLACES = 0, 48, 64


class ClassMeans:
    """The set of a double ``board``; ``kept`` is what outlives its power."""

    def __init__(self, board: Any) -> None:
        self.board, self.kept, self.commits = board, None, 0
        self.drop()

    def drop(self) -> None:
        self.coming, self.length, self.sha, self.set = b"", 0, b"", b""
        self.means, self.names = Means(1, 0), {}
        self.x, self.last = b"", -1

    def hash_of(self, stage: int) -> bytes:
        """Of what gives the embedding; empty if it is not there."""
        if stage == LEARNER:
            return sha256(self.board.here()).digest() if self.board.has_weights() else b""
        return bytes(self.board.store.hash)

    def put(self, off: int, data: bytes, len: int = 0, sha: bytes = b"") -> dict[str, Any]:
        if off == 0 and (len < 1 or sha.__len__() != 32):
            raise Refuse(INVALID)
        if off == 0 and (len, sha) != (self.length, self.sha):
            self.drop()
            self.length, self.sha = len, sha
        if off == self.coming.__len__() and off < self.length:
            self.coming += data
            if self.coming.__len__() == self.length:
                self.take(self.coming)
        return {"off": self.coming.__len__()}

    def take(self, record: bytes) -> None:
        announced = self.sha
        try:
            if sha256(record).digest() != announced:
                raise Refuse(HASH)
            self.check(record)
        except Refuse:
            self.drop()
            raise
        self.set = announced

    def check(self, record: bytes) -> None:
        if len(record) < HEADER:
            raise Refuse(INVALID)
        stage, flags, places, threshold = struct.unpack("<3If", record[:16])
        if stage > 1 or flags > 3 or not 1 <= places <= PLACES or not threshold >= 0:
            raise Refuse(INVALID)
        if not (here := self.hash_of(stage)):
            raise Refuse(STATE)
        if here != record[16:HEADER]:
            raise Refuse(STALE)
        size = self.board.layers[-1].values if stage == LEARNER else len(self.board.store.content)
        centre = np.frombuffer(record[HEADER:], "<f4") if flags & 1 else None
        if len(record) != HEADER + (4 * size if flags & 1 else 0):
            raise Refuse(INVALID)
        if centre is not None and not (np.abs(centre) < reference.LIMIT).all():
            raise Refuse(NUMERIC)
        self.stage, self.of, self.threshold = stage, here, threshold
        self.means, self.names = Means(size, places, centre, bool(flags & 2)), {}

    def sample(self, off: int, data: bytes) -> Any:
        """More of a sample; its prepared embedding once it is whole. The stage is the learner."""
        if not self.set:
            raise Refuse(STATE)
        if not (here := self.hash_of(self.stage)):
            raise Refuse(STATE)
        if here != self.of:
            raise Refuse(STALE)
        whole = 4 * prod(self.board.layers[0].input)
        if off == 0:
            self.x = b""
        if off == len(self.x):
            if off + len(data) > whole:
                raise Refuse(INVALID)
            self.x += data
        if len(self.x) < whole:
            return None
        learner = reference.Learner(self.board.layers, self.board.loss_kind, self.board.theta)
        return self.means.prepared(learner.forward(np.frombuffer(self.x, "<f4"))[-1])

    def enrol(self, number: int, count: int, off: int, data: bytes, name: str | None = None) -> dict[str, Any]:
        if not self.set:
            raise Refuse(STATE)
        if not 0 <= number < self.means.places or (name is not None and len(name.encode()) > 16):
            raise Refuse(INVALID)
        before = self.means.counts[number]
        if before == count + 1 and self.last == number:
            return {"off": 4 * prod(self.board.layers[0].input), "count": before}
        if before != count:
            raise Refuse(STALE)
        embedding = self.sample(off, data)
        if embedding is None:
            return {"off": len(self.x)}
        self.means.add(number, embedding)
        self.last, at, self.x = number, len(self.x), b""
        if name is not None:
            self.names[number] = name
        return {"off": at, "count": self.means.counts[number]}

    def classify(self, off: int, data: bytes) -> dict[str, Any]:
        embedding = self.sample(off, data)
        if embedding is None:
            return {"off": len(self.x)}
        number, distance = self.means.nearest(embedding, self.threshold)
        name = "" if number is None else self.names.get(number, "")
        return {"off": len(self.x), "number": -1 if number is None else number, "distance": float(distance), "name": name}

    def forget(self, number: int | None = None) -> dict[str, Any]:
        if number is None:
            self.drop()
        elif number >= self.means.places:
            raise Refuse(INVALID if self.set else STATE)
        else:
            self.means.clear(number)
            self.names.pop(number, None)
            self.last = -1
        return {"left": sum(count > 0 for count in self.means.counts)}

    def list(self, first: int) -> dict[str, Any]:
        numbers = [number for number in range(first, self.means.places) if self.means.counts[number]]
        return {
            "set": self.set, "places": self.means.places, "next": self.means.places, "numbers": numbers,
            "counts": [self.means.counts[number] for number in numbers],
            "names": [self.names.get(number, "") for number in numbers],
        }  # fmt: skip

    def commit(self) -> dict[str, Any]:
        if not self.set:
            raise Refuse(STATE)
        held = self.set, self.means.sums.tobytes(), tuple(self.means.counts), dict(self.names)
        self.commits += held != self.kept
        self.kept = held
        return {"commits": self.commits}
