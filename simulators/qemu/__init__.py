"""Emulated boards, each a QEMU process: slower than unicorn, and closer to the chip (FPU, faults, interrupts)."""

import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tinyfl.building.boards import Board, Qemu
from tinyfl.errors import ConfigError, InstallError
from tinyfl.simulators import BoardFault
from tinyfl.simulators.bridge import Link
from tinyfl.system.child import Child
from tinyfl.system.files import private_folder

PROGRAM = "qemu-system-arm"
DEADLINE = 30.0
"""Timeout for QEMU's start and its answers, in seconds."""

# A one-byte UART takes the host's bytes one by one, each through QEMU's main loop. A multiplexed character device passes up to
# 32 at once, in about half the time; its escape character is set to a value outside a byte.
MULTIPLEXED, NO_ESCAPE = "mux=on", "0x100"


READINGS = {"mps2-an385": 0x2100_0000, "mps2-an386": 0x2100_0000, "mps2-an500": 0x6000_0000}
"""Machines with external RAM, which the firmware does not use, and its address."""


class QemuBoard:
    """Board ``serial`` of kind ``board``, running the firmware in the ELF file ``elf`` in a QEMU process. ``readings`` are
    those of its sensor (tinyfl.sensors.recording.image), for machines with memory that the firmware does not use.

    ``url`` is for pyserial's ``serial_for_url``; one client at a time. QEMU ends with this process, however that ends.
    Raises InstallError without QEMU, ConfigError for a board without a QEMU machine, BoardFault if QEMU does not start.
    """

    def __init__(self, elf: Path, board: Board, serial: int, link: Link = "tcp", readings: bytes = b"") -> None:
        if board.qemu is None or board.memory is None:
            raise ConfigError(f"{board.name} has no QEMU machine. Give its manifest [emulators] qemu, or use another engine.")
        if shutil.which(PROGRAM) is None:
            raise InstallError(f"{PROGRAM} is not installed: apt-get install qemu-system-arm (macOS: brew install qemu)")
        if readings and board.qemu.machine not in READINGS:
            raise ConfigError(
                f"QEMU's machine {board.qemu.machine} has no place for readings; {', '.join(READINGS)} have. Leave the engine "
                "out for unicorn."
            )
        self.board, self.serial = board, serial
        self._up = ExitStack()
        folder = self._up.enter_context(private_folder("tinyfl-qemu-"))
        identity, self._errors = folder / "identity", folder / "errors"
        place = READINGS[board.qemu.machine] if readings else 0
        identity.write_bytes(b"TFLI" + serial.to_bytes(8, "big") + place.to_bytes(4, "little"))
        loaded = {board.memory.identity: identity}
        if readings:
            loaded[place] = folder / "readings"
            loaded[place].write_bytes(readings)
        self._control, peer = socket.socketpair()
        self._control.settimeout(DEADLINE)
        with socket.create_server(("127.0.0.1", 0)) as listener, peer, self._errors.open("wb") as errors:
            uart = f"socket,fd={listener.fileno()},server=on,wait=off,nodelay=on" if link == "tcp" else "pty"
            control = f"socket,fd={peer.fileno()}"
            self._child = Child(
                [PROGRAM, "-kernel", str(elf), *_options(board.qemu, loaded, uart, control)],
                stderr=errors,
                pass_fds=(listener.fileno(), peer.fileno()),
            )
            port = listener.getsockname()[1]
        self._replies = self._control.makefile()
        try:
            self._reply("QMP")
            self._execute("qmp_capabilities")
            self.url = f"socket://127.0.0.1:{port}" if link == "tcp" else self._pty()
        except BaseException:
            self.close()
            raise

    def reset(self) -> None:
        """Resets the board as by its reset pin. Memory stays, but program and identity record are reloaded."""
        self._execute("system_reset")

    def kill(self) -> None:
        """Ends the board as by a power failure."""
        self._child.kill()

    def close(self) -> None:
        """Ends the board and releases all resources."""
        self.kill()
        self._replies.close()
        self._control.close()
        self._up.close()

    def __enter__(self) -> "QemuBoard":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _pty(self) -> str:
        devices = {device["label"]: device["filename"] for device in self._execute("query-chardev")}
        return str(devices["uart-base"]).removeprefix("pty:")

    def _execute(self, command: str) -> Any:
        try:
            self._control.sendall(json.dumps({"execute": command}).encode())
        except OSError as error:
            raise self._failed(error) from error
        return self._reply("return")

    def _reply(self, key: str) -> Any:
        """The next message with ``key``; events are ignored."""
        while True:
            try:
                message = json.loads(self._replies.readline())
            except (OSError, ValueError) as error:
                raise self._failed(error) from error
            if key in message:
                return message[key]

    def _failed(self, error: Exception) -> BoardFault:
        output = self._errors.read_text(errors="replace").strip() or str(error)
        return BoardFault(f"QEMU does not run board {self.serial} ({self.board.name}): {output.splitlines()[0]}")


def user_mode(core: str) -> str:
    """The path of QEMU's user mode, which runs programs of Linux for the processor ``core``.

    Raises InstallError without it.
    """
    name = f"qemu-{core}"
    path = shutil.which(name)
    if path is None:
        raise InstallError(f"{name}, QEMU's user mode, is not installed: apt-get install qemu-user. It runs on Linux only.")
    return path


def _options(qemu: Qemu, loaded: Mapping[int, Path], uart: str, control: str) -> Iterator[str]:
    yield from ("-machine", qemu.machine, "-accel", "tcg,tb-size=8", "-nodefaults", "-display", "none")
    yield from ("-chardev", f"{control},id=control", "-mon", "chardev=control,mode=control")
    yield from ("-chardev", f"{uart},id=uart,{MULTIPLEXED}", "-echr", NO_ESCAPE)
    yield from ["-serial", "null"] * qemu.serial
    yield from ("-serial", "chardev:uart")
    for at, file in loaded.items():
        yield from ("-device", f"loader,file={file},addr={at:#x},force-raw=on")
