"""The weights of a double on their way down, encoded or not (SPEC.md, weights)."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import reference_inner
from double_program import HASH, INVALID, MEMORY, NUMERIC, STALE, Refuse

from tinyfl.codecs import Codec, Kind, decode
from tinyfl.errors import Corrupt

PLANNED, READY = 1, 2


@dataclass
class Upload:
    """Weights as the first block announces them, and the bytes that have come."""

    length: int
    sha: bytes
    codec: int
    onto: bytes | None
    came: bytearray = field(default_factory=bytearray)

    @property
    def key(self) -> tuple[Any, ...]:
        return self.length, self.sha, self.codec, self.onto is None, not self.onto

    @property
    def complete(self) -> bool:
        return len(self.came) == self.length


class Weights:
    """``held`` are the weights that stay while the board learns; ``place`` tells whether there is a place for them."""

    def __init__(self, double: Any) -> None:
        self.double = double
        self.drop()

    def drop(self) -> None:
        self.upload: Upload | None = None
        self.held: Any = None
        self.place = False

    @property
    def room(self) -> int:
        """Bytes of the place."""
        return 4 * self.double.weights if self.place else 0

    def put(self, off: int, data: bytes, length: int, sha: bytes, codec: int, onto: bytes | None) -> int:
        """Takes a block. Returns the expected offset."""
        if off == 0:
            self.begin(Upload(length, sha, codec, onto))
        upload = self.upload
        if upload is None:
            return 0
        if off != len(upload.came) or upload.complete:
            return len(upload.came)
        if off + len(data) > upload.length:
            raise Refuse(INVALID)
        upload.came += data
        if upload.complete:
            self.upload = None  # until it has turned out good
            self.take(upload)
            self.upload = upload
        return len(upload.came)

    def begin(self, new: Upload) -> None:
        board, old = self.double, self.upload
        self.sizes = [
            size for layer in board.layers if layer.weights for size in (layer.weights - layer.outputs, layer.outputs)
        ]
        if new.codec >= Kind.top or new.length != Codec(Kind(new.codec)).bytes(self.sizes):
            raise Refuse(INVALID)
        if new.onto and len(new.onto) != 32:
            raise Refuse(INVALID)
        known = self.held is not None and sha256(self.held.tobytes()).digest() == new.onto
        if old and old.key == new.key and board.state == (READY if old.complete else PLANNED) and not (old.complete and known):
            return
        if new.codec == 0 and new.onto is None and board.has_weights() and sha256(board.here()).digest() == new.sha:
            new.came = bytearray(new.length)
            self.upload, board.state = new, READY
            return
        if new.onto and not known:
            raise Refuse(STALE)
        self.make_place(new.onto is not None)
        self.upload, board.state = new, PLANNED

    def make_place(self, place: bool) -> None:
        board = self.double
        if place == self.place:
            return
        if place and board.small + 4 * board.weights > board.arena:
            raise Refuse(MEMORY)
        if place:
            board.store.forget()
        self.place, self.held, board.kept = place, None, reference_inner.Kept()

    def take(self, upload: Upload) -> None:
        """Makes weights of a complete upload."""
        if sha256(upload.came).digest() != upload.sha:
            raise Refuse(HASH)
        data = bytes(upload.came)
        try:
            values = decode(Codec(Kind(upload.codec)), data, self.sizes) if upload.codec else np.frombuffer(data, "<f4").copy()
        except Corrupt as error:
            raise Refuse(NUMERIC) from error
        if upload.onto:
            values = self.held + values
        self.held = None
        self.double.take_weights(values)
        if upload.onto is not None:
            self.held = values.copy()
