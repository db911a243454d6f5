"""A board a second time, from firmware/SPEC.md alone: plain and slow, with the NumPy reference as its learner."""

import struct
from binascii import crc_hqx
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from typing import Any

import cbor2
import numpy as np
import reference
import reference_inner
import reference_layers
from double_classes import ClassMeans
from double_online import OnlineLearning
from double_program import HASH, INVALID, MEMORY, NUMERIC, PLAN, SIZE, SOURCE, STALE, STATE, ProgramSlot, Refuse
from double_weights import Weights

f32 = np.float32
EMPTY, PLANNED, READY, LEARNING, LEARNT, FAILED = range(6)
NUMERIC_CODE, ABORTED = -4, -6
LAYERS = ["dense", "conv", "depthwise", "max-pool", "average-pool"]
INNER = ["phases", "layers", "pull", "gradient", "local", "kept", "residual", "prototypes", "fp16", "int8", "int4", "top"]


class Manage(Exception):
    """An error of MCUmgr's own, by its number."""

    def __init__(self, rc: int) -> None:
        self.rc = rc


def cobs(data: bytes) -> bytes:
    out = bytearray()
    for run in data.split(b"\0"):
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
        out += bytes([len(run) + 1]) + run
    return bytes(out)


def uncobs(frame: bytes) -> bytes | None:
    out, at = bytearray(), 0
    while at < len(frame):
        code = frame[at]
        if code == 0 or at + code > len(frame):
            return None
        out += frame[at + 1 : at + code]
        at += code
        if code < 255 and at < len(frame):
            out.append(0)
    return bytes(out)


def encode(value: Any) -> bytes:
    """CBOR as a board writes it: 32-bit floats."""
    if isinstance(value, float):
        return b"\xfa" + struct.pack(">f", value)
    if isinstance(value, dict):
        assert len(value) < 24
        return bytes([0xA0 + len(value)]) + b"".join(cbor2.dumps(key) + encode(item) for key, item in value.items())
    return cbor2.dumps(value)


@dataclass
class Transfer:
    """A plan or weights on their way."""

    length: int
    sha: bytes
    held: bytearray = field(default_factory=bytearray)


class Double:
    """One board. ``exchange`` is its UART; ``reset`` cuts its power."""

    def __init__(self, id: bytes = b"\1", *, buffer: int = 512, arena: int = 1 << 16, sources: tuple[str, ...] = ("sine",)):
        self.id, self.buffer, self.arena, self.sources = id, buffer, arena, sources
        self.protocol, self.window = 4, 4
        self.rates: tuple[int, ...] = (230_400, 921_600)
        self.store = ProgramSlot(1 << 16, arena)
        self.classes, self.online = ClassMeans(self), OnlineLearning(self)
        self.down = Weights(self)
        self.slots: list[tuple[int, bytes, bytes]] = []
        self.rounds = 0
        self.reset()

    def reset(self) -> None:
        self.baud, self.wanted, self.bad = 115_200, 115_200, 0
        self.line = bytearray()
        self.overflow = False
        self.resetting = False
        self.store.restart()
        self.classes.drop()
        self.online.drop()
        self.plan_bytes = b""
        self.layers: list[reference.Layer] = []
        self.theta = np.zeros(0, f32)
        self.plan_transfer: Transfer | None = None
        self.down.drop()
        self.state, self.code = EMPTY, 0
        self.asked: dict[str, Any] = {}
        self.round, self.base, self.done, self.started_from = 0, b"", 0, 0
        self.kept = reference_inner.Kept()
        self.sensed, self.sample = 0, b""
        self.stream: dict[int, tuple[int, bytes, dict[str, Any]]] = {}
        for _, plan, weights in self.slots[-1:]:
            self.take_plan(plan)
            self.take_weights(np.frombuffer(weights, "<f4").copy())

    # The line

    def exchange(self, data: bytes) -> bytes:
        out = b""
        for byte in data:
            if byte:
                self.line.append(byte)
                continue
            frame, self.line = bytes(self.line), bytearray()
            if answer := self.frame(frame):
                self.bad = 0
                out += answer
                self.baud = self.wanted
                if self.resetting:
                    self.reset()
                    return out
            elif frame:
                self.bad += 1
                if self.bad >= 3:
                    self.baud = self.wanted = 115_200
        return out

    def frame(self, frame: bytes) -> bytes:
        message = uncobs(frame)
        if not message or len(message) < 10 or len(message) - 2 > self.buffer:
            return b""
        message, crc = message[:-2], message[-2:]
        if crc_hqx(message, 0) != int.from_bytes(crc):
            return b""
        first, _, length, group, sequence, command = struct.unpack("!BBHHBB", message[:8])
        if length != len(message) - 8 or first & 0b111 not in (0, 2):
            return b""
        version = first >> 3
        try:
            reply = self.answer(first & 0b111, group, command, message[8:])
            payload = encode(reply)
            if len(payload) + 8 > self.buffer:
                raise Refuse(SIZE)
        except Manage as error:
            payload = encode({"rc": error.rc})
        except Refuse as error:
            payload = encode({"err": {"group": 65, "rc": error.rc}} if version else {"rc": 1})
        header = struct.pack("!BBHHBB", first + 1, 0, len(payload), group, sequence, command)
        return cobs(header + payload + crc_hqx(header + payload, 0).to_bytes(2)) + b"\0"

    def answer(self, operation: int, group: int, command: int, payload: bytes) -> dict[str, Any]:
        name = COMMANDS.get((group, command, operation))
        if name is None:
            raise Manage(8)
        try:
            request = cbor2.loads(payload)
        except (cbor2.CBORDecodeError, ValueError) as error:
            raise Manage(3) from error
        try:
            reply: dict[str, Any] = getattr(self, name)(**request)
        except TypeError as error:
            raise Refuse(INVALID) from error
        return reply

    # Commands

    def echo(self, d: str) -> dict[str, Any]:
        return {"r": d}

    def restart(self) -> dict[str, Any]:
        self.resetting = True
        return {}

    def parameters(self) -> dict[str, Any]:
        return {"buf_size": self.buffer, "buf_count": self.window}

    def get_rates(self) -> dict[str, Any]:
        return {"baud": self.baud, "rates": list(self.rates)}

    def put_rate(self, baud: int) -> dict[str, Any]:
        if baud not in (115_200, *self.rates):
            raise Refuse(INVALID)
        self.wanted = baud
        return {"baud": baud}

    def describe(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol, "firmware": "double", "core": 1, "board": "double", "id": self.id, "clock": 0,
            "arena": self.arena, "buffer": self.buffer, "window": self.window, "slot": 1 << 16, "layers": LAYERS,
            "dtypes": ["float32", "int8"], "inner": INNER, "sources": list(self.sources),
            "plan": sha256(self.plan_bytes).digest() if self.plan_bytes else b"",
            "model": sha256(self.slots[-1][2]).digest() if self.slots else b"",
            "store": self.store.size, "areas": 4096, "classes": ["learner", "program"],
            "online": ["learner", "program", "inputs"], "inference": self.store.hash,
            "down": ["fp16", "int8", "int4", "delta"], "sensors": [],
        }  # fmt: skip

    def block(self, transfer: Transfer | None, here: bytes, off: int, data: bytes, len_: int, sha: bytes) -> Transfer | int:
        """The transfer that goes on with this block, or where it should go on."""
        if off == 0 and not (transfer and (transfer.length, transfer.sha) == (len_, sha)):
            if here == sha:
                return len_
            transfer = Transfer(len_, sha)
        if transfer is None:
            return 0
        if off != len(transfer.held):
            return len(transfer.held)
        if off + len(data) > transfer.length:
            raise Refuse(INVALID)
        transfer.held += data
        return transfer

    def put_plan(self, off: int, data: bytes, len: int = 0, sha: bytes = b"") -> dict[str, Any]:
        if self.state == LEARNING:
            raise Refuse(STATE)
        self.store.forget()
        if off == 0 and sha not in (sha256(self.plan_bytes).digest(), self.plan_transfer.sha if self.plan_transfer else b""):
            self.classes.drop()
            self.online.drop()
        here = sha256(self.plan_bytes).digest() if self.plan_bytes else b"-"
        if off and self.plan_transfer is None and self.plan_bytes:
            return {"off": int(self.plan_bytes.__len__())}
        went = self.block(self.plan_transfer, here, off, data, len, sha)
        if isinstance(went, int):
            return {"off": went}
        self.plan_transfer = went
        held = bytes(went.held)
        if held.__len__() == went.length:
            self.plan_transfer = None
            if sha256(held).digest() != went.sha:
                raise Refuse(HASH)
            self.take_plan(held)
        return {"off": held.__len__()}

    def take_plan(self, held: bytes) -> None:
        try:
            layers, loss = reference_layers.read_plan(held)
        except ValueError as error:
            raise Refuse(PLAN) from error
        weights, arena = sum(layer.weights for layer in layers), reference_layers.resting_bytes(layers)
        if arena > self.arena:
            raise Refuse(MEMORY)
        self.plan_bytes, self.layers, self.loss_kind, self.weights, self.small = held, layers, loss, weights, arena
        self.state = PLANNED
        self.down.drop()
        self.kept = reference_inner.Kept()

    def put_weights(self, off: int, data: bytes, **asked: Any) -> dict[str, Any]:
        if self.state in (EMPTY, LEARNING):
            raise Refuse(STATE)
        announced = {"length": asked.pop("len", 0), "sha": b"", "codec": 0, "onto": None, **asked}
        return {"off": self.down.put(off, data, **announced)}

    def take_weights(self, theta: Any) -> None:
        try:
            reference.guard(theta)
        except reference.Bad as error:
            raise Refuse(NUMERIC) from error
        self.theta, self.state = theta, READY

    def get_weights(self, off: int) -> dict[str, Any]:
        if self.state not in (READY, LEARNT):
            raise Refuse(STATE)
        held = self.here()
        if not 0 <= off <= len(held):
            raise Refuse(INVALID)
        return {"off": off, "len": len(held), "data": held[off : off + self.buffer - 64]}

    def here(self) -> bytes:
        """The weights here, or the update that took their place."""
        return self.loop.data if self.state == LEARNT else self.theta.astype("<f4").tobytes()

    def train(self, **asked: Any) -> dict[str, Any]:
        run, saved = asked["run"], asked.pop("saved")
        if self.asked == asked and self.state in (LEARNING, LEARNT, FAILED):
            return self.status()
        if self.state not in (READY, LEARNT):
            raise Refuse(STATE)
        try:
            inner = reference_inner.read_inner(asked["inner"])
        except ValueError as error:
            raise Refuse(INVALID) from error
        if asked["source"] and asked["source"] not in self.sources:
            raise Refuse(SOURCE)
        if not self.has_weights() or asked["base"] != sha256(self.here()).digest():
            raise Refuse(STALE)
        kept = self.kept.after(inner, self.layers, run)
        small = self.small + self.down.room
        needed = small + 8 * kept.floats + reference_inner.loop_bytes(self.layers, inner)
        if needed > self.arena:
            raise Refuse(MEMORY)
        if needed > small + 8 * self.kept.floats:
            self.store.forget()
        self.kept = kept
        self.asked, self.round, self.base = asked, asked["round"], asked["base"]
        self.begin(inner, saved)
        if asked["source"]:
            while self.state == LEARNING and self.loop.index is not None:
                x, y = reference.sine_sample(asked["seed"], asked["device"], asked["round"], self.loop.index)
                self.learn(np.array([x]), np.array([y]))
        return self.status()

    def begin(self, inner: reference_inner.Inner, saved: int) -> None:
        weights = np.frombuffer(self.here(), "<f4").copy()
        self.started_from = 0
        if inner.kept:
            self.kept.recall(self.round, saved)
            self.kept.load(weights, self.layers)
            self.started_from = self.kept.number
        self.loop = reference_inner.Loop(self.layers, self.loss_kind, weights, inner, self.kept.residual(self.layers))
        self.done, self.fed, self.state, self.code = 0, bytearray(), LEARNING, 0
        self.off = 0
        self.rounds += 1

    def learn(self, x: Any, y: Any) -> None:
        try:
            self.loop.learn(x, y)
        except (reference.Bad, reference.Dead):
            self.state, self.code = FAILED, NUMERIC_CODE
            return
        self.done = self.loop.done
        if self.loop.index is None:
            self.state, self.theta = LEARNT, self.loop.weights
            if self.loop.inner.kept:
                self.kept.store(self.loop.block, self.round)

    def samples(self, off: int, data: bytes) -> dict[str, Any]:
        if not self.asked or self.asked["source"] or self.state not in (LEARNING, LEARNT):
            raise Refuse(STATE)
        if off != self.off or self.state == LEARNT:
            return {"off": self.off}
        self.off += len(data)
        self.fed += data
        for x, y in self.whole(self.fed):
            if self.state == LEARNING:
                self.learn(x, y)
        if self.state == FAILED:
            raise Refuse(NUMERIC)
        return {"off": self.off}

    def whole(self, fed: bytearray) -> list[tuple[Any, Any]]:
        """Takes the whole samples out of a stream."""
        inputs, outputs = prod(self.layers[0].input), self.layers[-1].values
        size = 4 * (inputs + outputs)
        whole = len(fed) // size * size
        rows = np.frombuffer(bytes(fed[:whole]), "<f4").reshape(-1, inputs + outputs)
        del fed[:whole]
        return [(row[:inputs], row[inputs:]) for row in rows]

    def evaluate(self, off: int, data: bytes) -> dict[str, Any]:
        self.need_weights()
        if off == 0:
            self.eval_off, self.eval_fed, self.count, self.eval_total, self.right = 0, bytearray(), 0, f32(0), 0
        if off == self.eval_off:
            self.eval_off += len(data)
            self.eval_fed += data
            for x, y in self.whole(self.eval_fed):
                output = reference.Learner(self.layers, self.loss_kind, self.theta).forward(x)[-1]
                self.eval_total += reference.loss_and_gradient(output, y, self.loss_kind)[0]
                self.right += int(output.argmax() == y.argmax())
                self.count += 1
        mean = float(self.eval_total / f32(max(self.count, 1)))
        return {"off": self.eval_off, "samples": self.count, "loss": mean, "right": self.right}

    def infer(self, off: int, data: bytes) -> dict[str, Any]:
        self.need_weights()
        if off == 0:
            self.infer_off, self.x = 0, bytearray()
        if off == self.infer_off:
            self.infer_off += len(data)
            self.x += data
        if len(self.x) != 4 * prod(self.layers[0].input):
            return {"off": self.infer_off}
        output = reference.Learner(self.layers, self.loss_kind, self.theta).forward(np.frombuffer(bytes(self.x), "<f4"))[-1]
        return {"off": self.infer_off, "data": output.astype("<f4").tobytes()}

    def put_program(self, off: int, data: bytes, len: int = 0, sha: bytes = b"") -> dict[str, Any]:
        return {"off": self.store.put(off, data, len, sha)}

    def predict(self, off: int, data: bytes) -> dict[str, Any]:
        whole = self.store.predict(off, data, self.taken())
        return {"off": len(self.store.x), **(self.store.part(0, self.buffer - 64) if whole else {})}

    def get_prediction(self, off: int) -> dict[str, Any]:
        return {"off": off, **self.store.part(off, self.buffer - 64)}

    def put_classes(self, **asked: Any) -> dict[str, Any]:
        return self.classes.put(**asked)

    def list_classes(self, first: int) -> dict[str, Any]:
        return self.classes.list(first)

    def enrol(self, **asked: Any) -> dict[str, Any]:
        return self.classes.enrol(**asked)

    def classify(self, off: int, data: bytes) -> dict[str, Any]:
        return self.classes.classify(off, data)

    def forget(self, number: int | None = None) -> dict[str, Any]:
        return self.classes.forget(number)

    def commit_classes(self) -> dict[str, Any]:
        return self.classes.commit()

    def put_online(self, **asked: Any) -> dict[str, Any]:
        return self.online.put(**asked)

    def list_online(self, first: int) -> dict[str, Any]:
        return self.online.list(first)

    def take_sample(self, **asked: Any) -> dict[str, Any]:
        return self.online.sample(**asked)

    def put_label(self, **asked: Any) -> dict[str, Any]:
        return self.online.label(**asked)

    def forget_output(self, **asked: Any) -> dict[str, Any]:
        return self.online.forget(**asked)

    def put_learnt(self, **asked: Any) -> dict[str, Any]:
        return self.online.put_back(**asked)

    def get_learnt(self, off: int) -> dict[str, Any]:
        return self.online.learnt(off)

    def commit_online(self) -> dict[str, Any]:
        return self.online.commit()

    def roll_back(self) -> dict[str, Any]:
        return self.online.roll_back()

    def get_head(self, off: int) -> dict[str, Any]:
        return self.online.head(off)

    def put_head(self, **asked: Any) -> dict[str, Any]:
        return self.online.put_head(**asked)

    def listen(self, **asked: Any) -> dict[str, Any]:
        return self.online.listen(**asked)

    def sense(self, source: str, readings: int, measure: int, at: int = 0) -> dict[str, Any]:
        if self.state == LEARNING:
            raise Refuse(STATE)
        if source not in self.sources or readings:
            raise Refuse(SOURCE)
        x, y = reference.sine_sample(0, 0, 2**32 - 1, self.sensed)
        self.sensed += 1
        end = {"code": 0, "late": 0, "taken": 0}
        if not measure:
            self.sample = np.array([x, y], "<f4").tobytes()
            return {"off": 0, "len": 8, "data": self.sample, **end}
        self.need_weights()
        output = reference.Learner(self.layers, self.loss_kind, self.theta).forward(np.array([x], f32))[-1]
        loss = reference.loss_and_gradient(output, np.array([y], f32), self.loss_kind)[0]
        return {"loss": float(loss), "right": 1, "best": 0, **end}

    def get_sample(self, off: int) -> dict[str, Any]:
        if not self.sample:
            raise Refuse(STATE)
        return {"off": off, "len": 8, "data": self.sample[off:]}

    def taken(self) -> int:
        """Bytes of the arena that the learner has."""
        if self.state == EMPTY:
            return self.plan_transfer.length if self.plan_transfer else 0
        loop = reference_inner.loop_bytes(self.layers, self.loop.inner) if self.state == LEARNING else 0
        return self.small + self.down.room + 8 * self.kept.floats + loop

    def has_weights(self) -> bool:
        return self.state == READY or (self.state == LEARNT and not self.loop.inner.partial)

    def need_weights(self) -> None:
        if not self.has_weights():
            raise Refuse(STATE)

    def status(self) -> dict[str, Any]:
        came = self.plan_transfer.held if self.plan_transfer else self.down.upload.came if self.down.upload else b""
        done = len(came) if self.state in (EMPTY, PLANNED) else self.done
        loss = float(self.loop.loss) if self.state == LEARNT else 0.0
        here = sha256(self.here()).digest() if self.state in (READY, LEARNT) else b""
        return {
            "state": self.state, "round": self.round, "base": self.base, "done": done, "loss": loss, "code": self.code,
            "weights": here, "kept": self.started_from, "stack": 0, "late": 0,
            "drifts": self.online.drifts, "wanted": self.online.wanted,
        }  # fmt: skip

    def abort(self) -> dict[str, Any]:
        if self.state == LEARNING:
            self.state, self.code = FAILED, ABORTED
        return self.status()

    def commit(self, sha: bytes) -> dict[str, Any]:
        self.need_weights()
        held = self.theta.astype("<f4").tobytes()
        if sha256(held).digest() != sha:
            raise Refuse(STALE)
        if not self.slots or self.slots[-1][1:] != (self.plan_bytes, held):
            self.slots.append((len(self.slots) + 1, self.plan_bytes, held))
        return {"slot": (len(self.slots) - 1) % 2, "commits": self.slots[-1][0]}


COMMANDS = {
    (0, 0, 2): "echo", (0, 5, 2): "restart", (0, 6, 0): "parameters",
    (65, 0, 0): "describe", (65, 1, 2): "put_plan", (65, 2, 2): "put_weights", (65, 2, 0): "get_weights",
    (65, 3, 2): "train", (65, 4, 2): "samples", (65, 5, 2): "evaluate", (65, 6, 2): "infer", (65, 7, 0): "status",
    (65, 8, 2): "abort", (65, 9, 2): "commit", (65, 10, 2): "put_program", (65, 11, 2): "predict",
    (65, 11, 0): "get_prediction", (65, 12, 2): "put_classes", (65, 12, 0): "list_classes", (65, 13, 2): "enrol",
    (65, 14, 2): "classify", (65, 15, 2): "forget", (65, 16, 2): "commit_classes",
    (65, 17, 0): "get_rates", (65, 17, 2): "put_rate", (65, 18, 2): "sense", (65, 18, 0): "get_sample",
    (65, 19, 2): "put_online", (65, 19, 0): "list_online", (65, 20, 2): "take_sample", (65, 21, 2): "put_label",
    (65, 22, 2): "forget_output", (65, 23, 2): "put_learnt", (65, 23, 0): "get_learnt", (65, 24, 2): "commit_online",
    (65, 25, 2): "roll_back", (65, 26, 2): "put_head", (65, 26, 0): "get_head", (65, 27, 2): "listen",
}  # fmt: skip
