"""A gateway's SuperNode: Flower's own, as a program of ours (supernode_main), a child that is started again when it dies."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Listener
from pathlib import Path

from tinyfl.deployment import certificates
from tinyfl.deployment.supernode_main import flower
from tinyfl.errors import ConfigError, LinkError
from tinyfl.errors.words import plain
from tinyfl.flower.ipc import Answer, serve
from tinyfl.system.addresses import free_port, loopback
from tinyfl.system.child import Child
from tinyfl.system.files import private_folder

TASK_POLL = "0.1"
"""Seconds from one look for work of Flower's SuperExec to the next; its own default is 1."""

REFUSED = "Failed to activate SuperNode"
"""What Flower says where a key is not registered, and also for a minute after a SuperNode with this key was killed, until two
of its heartbeats are missed."""

CONNECTED = "SuperNode ID:"
"""What Flower says once a SuperNode is in the federation: whatever ends it then, another try makes sense."""

REFUSED_SECONDS, RETRY_SECONDS, PAUSE_SECONDS = 90.0, 5.0, 1.0

GOODBYE_SECONDS = 2.0
"""What a SuperNode may take to tell the SuperLink that it leaves. A gateway ends within 5."""

LONGEST_PATH = 100
"""Of a Unix socket, in bytes, on all systems."""

LAST_LINES = 12
"""Of the SuperNode's log, in the message that it failed."""


@dataclass(frozen=True)
class SuperLink:
    """Where a federation is: ``host:port``, the CA's certificate that its own is held against, and the key by which this node
    is known there; both None where ``insecure``, which is for this machine alone."""

    address: str
    root_certificates: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def check(self) -> tuple[str, ...]:
        """Words on certificates that expire soon. Raises ConfigError for what cannot be, and for a SuperLink whose certificate
        has expired or is not of this CA or for this host. One that does not answer is no error: it may come later."""
        host, port = self._parts()
        if self.insecure:
            if not loopback(host):
                raise ConfigError(
                    f"--insecure is for a SuperLink on this machine, and {host} is another. Make keys (tinyfl keys) and give "
                    "--root-certificates and --key."
                )
            if self.key or self.root_certificates:
                raise ConfigError("--insecure has neither certificates nor a key. Leave it out, or them.")
            return ()
        if self.root_certificates is None or self.key is None:
            raise ConfigError(
                "a gateway needs --root-certificates ca.crt and its own --key (tinyfl keys makes both); on this machine alone, "
                "for a trial, give --insecure."
            )
        for path in (self.root_certificates, self.key):
            if not path.is_file():
                raise ConfigError(f"{path}: no such file. Copy it here from where tinyfl keys wrote it.")
        return certificates.check(self.address, host, port, self.root_certificates)

    def arguments(self) -> list[str]:
        """The options of flower-supernode."""
        to = ["--superlink", self.address]
        if self.insecure:
            return [*to, "--insecure"]
        return [*to, "--root-certificates", str(self.root_certificates), "--auth-supernode-private-key", str(self.key)]

    def _parts(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ConfigError(f"--superlink {self.address} is no address. Give HOST:PORT, such as 127.0.0.1:8000.")
        return host.strip("[]"), int(port)


def serve_federation(superlink: SuperLink, answer: Answer, ended: threading.Event, tell: Callable[[str], None]) -> None:
    """Has a SuperNode serve ``answer`` to the federation until ``ended`` is set. It runs the apps that this machine's allow
    list lets it (tinyfl.flower.allowed).

    Raises LinkError where the SuperLink refuses it, ConfigError where its certificate is not what it must be, InstallError
    where another version of Flower's is installed.
    """
    flower()
    for word in superlink.check():
        tell(word)
    with private_folder("tinyfl-gateway-") as folder, ExitStack() as first:
        path = folder / "socket"
        if len(str(path)) > LONGEST_PATH:
            raise ConfigError(f"{path} is too long for a socket's path. Give TMPDIR a shorter folder.")
        closed = threading.Event()
        listener = first.enter_context(closing(Listener(str(path), family="AF_UNIX")))
        first.callback(closed.set)
        threading.Thread(target=serve, args=(listener, answer, closed), name="tinyfl-gateway", daemon=True).start()
        prepare_environment(folder)
        refused = 0.0
        while not ended.is_set():
            why = _one_life(superlink, _command(superlink, folder), folder / "supernode.log", ended, tell)
            if REFUSED in why:
                refused = refused or time.monotonic()
                if time.monotonic() - refused > REFUSED_SECONDS:
                    raise LinkError(
                        f"the SuperLink at {superlink.address} does not know the key {superlink.key}. Where it runs: flwr "
                        f"supernode register {superlink.key and superlink.key.stem}.pub CONNECTION (docs/federation.md)."
                    )
                tell(
                    "the SuperLink refuses this key: it is not registered there, or was in use until a moment ago; "
                    f"trying again for {REFUSED_SECONDS - (time.monotonic() - refused):.0f} s"
                )
                ended.wait(RETRY_SECONDS)
            elif why:
                refused = 0.0
                tell(f"{why}; it is started again, the boards are as they were")
                ended.wait(PAUSE_SECONDS)
                _wait_for_certificate(superlink, ended, tell)


def _wait_for_certificate(superlink: SuperLink, ended: threading.Event, tell: Callable[[str], None]) -> None:
    """Comes back once the SuperLink's certificate is in order, or ``ended`` is set; says once what is wrong with it."""
    told = ""
    while not ended.is_set():
        try:
            superlink.check()
            return
        except ConfigError as error:
            if str(error) != told:
                told = str(error)
                tell(f"{told} Then this gateway goes on by itself.")
        ended.wait(RETRY_SECONDS)


def _command(superlink: SuperLink, folder: Path) -> list[str]:
    """What starts a SuperNode whose runtime API listens at a free port; all that it goes by is in ``folder``."""
    port, secret, given = str(free_port()), folder / "secret", folder / "arguments"
    secret.write_text(secrets.token_hex(32))
    arguments = [
        *superlink.arguments(), "--host", "127.0.0.1", "--port", port, "--node-config", f'gateway="{folder / "socket"}"',
        "--isolation", "process", "--superexec-auth-secret-file", str(secret),
    ]  # fmt: skip
    given.write_text(json.dumps(arguments))
    return [sys.executable, "-P", "-m", "tinyfl.deployment.supernode_main", str(given)]


def prepare_environment(folder: Path) -> None:
    """What Flower's processes here go by: this installation's programs, and a home of their own, since Flower takes an app that
    was unpacked before for the same by eight digits of its sum. What they write is for this user alone."""
    os.umask(0o077)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["FLWR_HOME"] = str(folder)
    os.environ.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", TASK_POLL)


def _one_life(superlink: SuperLink, command: list[str], log: Path, ended: threading.Event, tell: Callable[[str], None]) -> str:
    """From a SuperNode's start to its end, and why it ended; empty where ``ended`` is set. What it says meanwhile is told.

    Raises ConfigError or LinkError where it failed in a way that another try does not mend.
    """
    with log.open("wb") as output, Child(command, stdout=subprocess.PIPE, stderr=output) as node:
        said = threading.Thread(target=_pass_on, args=(node.process, tell), name="tinyfl-supernode", daemon=True)
        said.start()
        while node.process.poll() is None:
            if ended.wait(0.2):
                node.process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    node.process.wait(GOODBYE_SECONDS)
                return ""
        said.join(PAUSE_SECONDS)
        code = node.process.returncode
    if code < 0:
        return f"the SuperNode was ended by signal {-code}"
    text = log.read_text(errors="replace")
    if REFUSED in text:
        return REFUSED
    if CONNECTED in text:
        return f"the SuperNode ended with code {code}"
    superlink.check()
    lines = [plain(line) for line in text.splitlines() if line.strip()]
    raise LinkError(f"the SuperNode ended with code {code}:\n" + "\n".join(lines[-LAST_LINES:]))


def _pass_on(process: subprocess.Popen[bytes], tell: Callable[[str], None]) -> None:
    assert process.stdout is not None
    with suppress(ValueError):  # it is closed with the child
        for line in process.stdout:
            tell(plain(line.decode(errors="replace"), 1000))
