"""A gateway's SuperNode: Flower's own program, a child that is started again when it dies."""

import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Listener
from pathlib import Path

from tinyfl.errors import ConfigError, InstallError, LinkError
from tinyfl.flower.ipc import Answer, serve
from tinyfl.simulators.child import Child

CHECK_SECONDS = 5.0
"""What a SuperLink may take to show its certificate, before anything is started."""

TASK_POLL = "0.1"
"""Seconds from one look for work of Flower's SuperExec to the next; its own default is 1."""

REFUSED = "Failed to activate SuperNode"
"""What Flower says where a key is not registered, and also for a minute after a SuperNode with this key was killed, until two
of its heartbeats are missed."""

CONNECTED = "SuperNode ID:"
"""What Flower says once a SuperNode is in the federation: whatever ends it then, another try makes sense."""

REFUSED_SECONDS, RETRY_SECONDS, PAUSE_SECONDS = 90.0, 5.0, 1.0

GOODBYE_SECONDS = 2.5
"""What a SuperNode may take to tell the SuperLink that it leaves."""

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

    def check(self) -> None:
        """Raises ConfigError for what cannot be, and for a SuperLink whose certificate is not of this CA or for this host. One
        that does not answer is no error: it may come later."""
        host, port = self._parts()
        if self.insecure:
            if not _loopback(host):
                raise ConfigError(
                    f"--insecure is for a SuperLink on this machine, and {host} is another. Make keys (tinyfl keys) and give "
                    "--root-certificates and --key."
                )
            if self.key or self.root_certificates:
                raise ConfigError("--insecure has neither certificates nor a key. Leave it out, or them.")
            return
        if self.root_certificates is None or self.key is None:
            raise ConfigError(
                "a gateway needs --root-certificates ca.crt and its own --key (tinyfl keys makes both); on this machine alone, "
                "for a trial, give --insecure."
            )
        for path in (self.root_certificates, self.key):
            if not path.is_file():
                raise ConfigError(f"{path}: no such file. Copy it here from where tinyfl keys wrote it.")
        self._shake_hands(host, port, self.root_certificates)

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

    def _shake_hands(self, host: str, port: int, root: Path) -> None:
        try:
            context = ssl.create_default_context(cafile=str(root))
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"{root} is no certificate ({error}). Give the ca.crt that tinyfl keys wrote.") from error
        try:
            with socket.create_connection((host, port), CHECK_SECONDS) as plain:
                context.wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(
                f"the SuperLink at {self.address} shows a certificate that {root} does not vouch for ({error.verify_message}). "
                "Give the ca.crt of this federation, and an address that its certificate names (tinyfl keys --host)."
            ) from error
        except ssl.SSLError as error:
            raise ConfigError(
                f"the SuperLink at {self.address} does not speak TLS ({error}). Start it with its certificates."
            ) from error
        except OSError:
            return


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve_federation(superlink: SuperLink, answer: Answer, ended: threading.Event, tell: Callable[[str], None]) -> None:
    """Has a SuperNode serve ``answer`` to the federation until ``ended`` is set.

    Raises LinkError where the SuperLink refuses it, InstallError where Flower's programs are not there.
    """
    superlink.check()
    with tempfile.TemporaryDirectory(prefix="tinyfl-gateway-") as folder:
        path = Path(folder, "socket")
        if len(str(path)) > LONGEST_PATH:
            raise ConfigError(f"{path} is too long for a socket's path. Give TMPDIR a shorter folder.")
        closed = threading.Event()
        with closing(Listener(str(path), family="AF_UNIX")) as listener, ExitStack() as first:
            first.callback(closed.set)
            threading.Thread(target=serve, args=(listener, answer, closed), name="tinyfl-gateway", daemon=True).start()
            _prepare_environment(folder)
            log = Path(folder, "supernode.log")
            refused = 0.0
            while not ended.is_set():
                why = _one_life(_command(superlink, path), log, ended)
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


def _command(superlink: SuperLink, path: Path) -> list[str]:
    program = Path(sys.executable).with_name("flower-supernode")
    if not program.exists():
        raise InstallError(f"{program} is not there. Install tinyfl again: it brings Flower's programs.")
    return [
        str(program), *superlink.arguments(),
        "--host", "127.0.0.1", "--port", str(free_port()), "--node-config", f'gateway="{path}"',
    ]  # fmt: skip


def _prepare_environment(folder: str) -> None:
    """What the SuperNode and its processes go by: this installation's programs, and a home of their own, since several gateways
    on a machine would unpack the same app over each other."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["FLWR_HOME"] = folder
    os.environ.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", TASK_POLL)


def _one_life(command: list[str], log: Path, ended: threading.Event) -> str:
    """From a SuperNode's start to its end, and why it ended; empty where ``ended`` is set.

    Raises LinkError where it failed in a way that another try does not mend.
    """
    with log.open("wb") as output, Child(command, stdout=output, stderr=output) as node:
        while node.process.poll() is None:
            if ended.wait(0.2):
                node.process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    node.process.wait(GOODBYE_SECONDS)
                return ""
        code = node.process.returncode
    if code < 0:
        return f"the SuperNode was ended by signal {-code}"
    said = log.read_text(errors="replace")
    if REFUSED in said:
        return REFUSED
    if CONNECTED in said:
        return f"the SuperNode ended with code {code}"
    lines = [line for line in said.splitlines() if line.strip()]
    raise LinkError(f"the SuperNode ended with code {code}:\n" + "\n".join(lines[-LAST_LINES:]))


def free_port() -> int:
    """A TCP port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
