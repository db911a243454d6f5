"""A gateway's SuperNode: Flower's own, run by supernode_main as a child process that is restarted when it dies."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Listener
from pathlib import Path

from tinyfl.deployment import certificates
from tinyfl.deployment.keys import demand_node_key
from tinyfl.deployment.supernode_main import CONNECTED, Tell, flower
from tinyfl.errors import ConfigError, LinkError
from tinyfl.errors.words import plain
from tinyfl.flower.ipc import Answer, serve
from tinyfl.system.addresses import free_port, loopback
from tinyfl.system.child import Child
from tinyfl.system.files import private_folder
from tinyfl.system.proxies import demand_usable, exempt_loopback

SOCKET = "socket"
"""The gateway's socket in its folder."""

REMOVED = "the folder was removed"

TASK_POLL = "0.1"
"""Polling interval of Flower's SuperExec, in seconds; its default is 1."""

REFUSED = "Failed to activate SuperNode"
"""Flower's message for an unregistered key, and also for a minute after a SuperNode with this key was killed, until two of its
heartbeats are missed."""

REFUSED_SECONDS, RETRY_SECONDS, PAUSE_SECONDS = 90.0, 5.0, 1.0

GOODBYE_SECONDS = 2.0
"""Time for a SuperNode to sign off from the SuperLink, in seconds. A gateway ends within 5."""

MAX_SOCKET_PATH = 100
"""Maximum length of a Unix socket's path on all systems, in bytes."""

FORKS = "listener-12345678"
"""A name as Python gives the socket of a fork server: the longest in the folder."""

LAST_LINES = 12
"""Number of lines of the SuperNode's log quoted in an error."""


@dataclass(frozen=True)
class SuperLink:
    """A federation's SuperLink: its address ``host:port``, the CA's certificate that verifies it, and this node's private key;
    both None if ``insecure``, which is for this machine only."""

    address: str
    root_certificates: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def check(self) -> tuple[str, ...]:
        """Warnings about certificates that expire soon. Raises ConfigError for invalid options, and for a SuperLink whose
        certificate has expired, or is from another CA or for another host; ClockError for a clock that Flower would refuse. No
        answer is no error: it may start later."""
        host, port = self._parts()
        demand_usable()
        if self.insecure:
            if not loopback(host):
                raise ConfigError(
                    f"--insecure is for a SuperLink on this machine, but {host} is another. Make keys (tinyfl keys) and give "
                    "--root-certificates and --key."
                )
            if self.key or self.root_certificates:
                raise ConfigError("--insecure excludes --root-certificates and --key. Leave it out, or them.")
            return ()
        if self.root_certificates is None or self.key is None:
            raise ConfigError(
                "a gateway needs --root-certificates ca.crt and its own --key (tinyfl keys makes both); on this machine alone, "
                "for a trial, give --insecure."
            )
        for path in (self.root_certificates, self.key):
            if not path.is_file():
                raise ConfigError(f"{path}: no such file. Copy it here from the folder of tinyfl keys.")
        demand_node_key(self.key)
        return certificates.check(self.address, host, port, self.root_certificates, signs=True)

    def arguments(self) -> list[str]:
        """The options of flower-supernode."""
        options = ["--superlink", self.address]
        if self.insecure:
            return [*options, "--insecure"]
        return [*options, "--root-certificates", str(self.root_certificates), "--auth-supernode-private-key", str(self.key)]

    def _parts(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        if "://" in self.address:
            raise ConfigError(
                f"--superlink {self.address}: leave out {self.address.partition('://')[0]}://. Give HOST:PORT, such as "
                "lab.example:8000."
            )
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ConfigError(
                f"--superlink {self.address}: an IPv6 address has brackets. Give [ADDRESS]:PORT, such as [::1]:8000."
            )
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ConfigError(f"--superlink {self.address} is no address. Give HOST:PORT, such as 127.0.0.1:8000.")
        return host.strip("[]"), int(port)


def serve_federation(superlink: SuperLink, answer: Answer, ended: threading.Event, tell: Tell) -> None:
    """Runs a SuperNode that serves ``answer`` to the federation until ``ended`` is set. It runs only apps in this machine's
    allow list (tinyfl.flower.allowed).

    Raises LinkError if the SuperLink refuses the key, ConfigError for a bad certificate, InstallError for another version of
    Flower.
    """
    flower()
    for warning in _when_valid(superlink, ended, tell, certificates.ClockError):
        tell(warning)
    while not ended.is_set():
        with private_folder("tinyfl-gateway-") as folder, _listening(folder / SOCKET, answer):
            prepare_environment(folder)
            _serve_from(folder, superlink, ended, tell)


@contextmanager
def _listening(path: Path, answer: Answer) -> Iterator[None]:
    """Serves ``answer`` at the socket ``path`` while the context lasts."""
    if len(str(path.with_name(FORKS))) > MAX_SOCKET_PATH:
        raise ConfigError(f"{path} is too long for a socket's path. Set TMPDIR to a shorter folder.")
    closed, listener = threading.Event(), Listener(str(path), family="AF_UNIX")
    threading.Thread(target=serve, args=(listener, answer, closed), name="tinyfl-gateway", daemon=True).start()
    try:
        yield
    finally:
        closed.set()
        with suppress(FileNotFoundError):  # somebody has removed it
            listener.close()


def _serve_from(folder: Path, superlink: SuperLink, ended: threading.Event, tell: Tell) -> None:
    """Runs SuperNodes, one after another, until ``ended`` is set, or ``folder`` has lost its socket."""
    refused = 0.0
    while not ended.is_set():
        why = _run_once(superlink, folder, ended, tell)
        if why == REMOVED:
            tell(f"{folder} was removed, as by a cleaner of temporary files; making another, the boards are unaffected")
            return
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
            tell(f"{why}; restarting it, the boards are unaffected")
            ended.wait(PAUSE_SECONDS)
            _when_valid(superlink, ended, tell)


def _when_valid(
    superlink: SuperLink, ended: threading.Event, tell: Tell, passing: type[ConfigError] = ConfigError
) -> tuple[str, ...]:
    """Waits until nothing ``passing`` is wrong with the SuperLink's certificate and the clocks, or ``ended`` is set; reports
    each fault once. Returns warnings about certificates."""
    reported: object = None
    while not ended.is_set():
        try:
            return superlink.check()
        except passing as error:
            kind = type(error) if isinstance(error, certificates.ClockError) else str(error)
            if kind != reported:
                reported = kind
                tell(f"{error} This gateway then continues by itself.")
        ended.wait(RETRY_SECONDS)
    return ()


def _command(superlink: SuperLink, folder: Path) -> list[str]:
    """The command of a SuperNode whose runtime API listens at a free port; its files are in ``folder``."""
    port, secret, given = str(free_port()), folder / "secret", folder / "arguments"
    secret.write_text(secrets.token_hex(32))
    arguments = [
        *superlink.arguments(), "--host", "127.0.0.1", "--port", port, "--node-config", f'gateway="{folder / SOCKET}"',
        "--isolation", "process", "--superexec-auth-secret-file", str(secret),
    ]  # fmt: skip
    given.write_text(json.dumps(arguments))
    return [sys.executable, "-P", "-m", "tinyfl.deployment.supernode_main", str(given)]


def prepare_environment(folder: Path) -> None:
    """Sets the environment of Flower's processes: this installation's programs, and a separate home, since Flower recognises
    an app that it has unpacked before by only eight digits of its hash. Their files are private to this user, and they reach
    each other past any proxy."""
    os.umask(0o077)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["FLWR_HOME"] = str(folder)
    os.environ.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", TASK_POLL)
    exempt_loopback(os.environ)


def _run_once(superlink: SuperLink, folder: Path, ended: threading.Event, tell: Tell) -> str:
    """Runs a SuperNode to its end and returns the reason; empty if ``ended`` is set. Its output is passed to ``tell``.

    Raises ConfigError or LinkError for a failure that would recur.
    """
    command, log = _command(superlink, folder), folder / "supernode.log"
    with log.open("wb") as output, Child(command, stdout=subprocess.PIPE, stderr=output) as node:
        output_thread = threading.Thread(
            target=_forward_output, args=(node.process, tell), name="tinyfl-supernode", daemon=True
        )
        output_thread.start()
        while node.process.poll() is None:
            if ended.wait(0.2) or not (folder / SOCKET).exists():
                node.process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    node.process.wait(GOODBYE_SECONDS)
                return "" if ended.is_set() else REMOVED
        output_thread.join(PAUSE_SECONDS)
        code = node.process.returncode
    if code < 0:
        return f"the SuperNode was ended by signal {-code}"
    text = log.read_text(errors="replace")
    if REFUSED in text:
        return REFUSED
    if CONNECTED in text:
        return f"the SuperNode ended with code {code}"
    try:
        superlink.check()
    except certificates.ClockError:
        return f"the SuperNode ended with code {code}"
    lines = [plain(line) for line in text.splitlines() if line.strip()]
    raise LinkError(f"the SuperNode ended with code {code}:\n" + "\n".join(lines[-LAST_LINES:]))


def _forward_output(process: subprocess.Popen[bytes], tell: Tell) -> None:
    assert process.stdout is not None
    with suppress(ValueError):  # it is closed with the child
        for line in process.stdout:
            tell(plain(line.decode(errors="replace"), 1000))
