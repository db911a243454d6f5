"""A SuperLink closed to strangers' code: all of Flower's APIs on this machine, but only its Fleet API on the network.

    --port          gateways, from anywhere: only /v1/fleet/
    --local-port    runs, from this machine: all of Flower's APIs, on 127.0.0.1

This process serves both, over one Flower app, so each request is parsed once. An app runs only if it is in the allow list
(tinyfl.flower.allowed): the submitter of another gets the reason, and its bytes never leave the database.
"""

import asyncio
import logging
import os
import re
import secrets
import socket
import ssl
import sys
import threading
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tinyfl.deployment import certificates
from tinyfl.deployment.inner import inner
from tinyfl.deployment.supernode import prepare_environment
from tinyfl.errors import ConfigError, LinkError
from tinyfl.errors.words import plain
from tinyfl.flower.allowed import Allowed, why_refused
from tinyfl.system.addresses import loopback
from tinyfl.system.child import Child
from tinyfl.system.files import private_folder

LOCAL = "127.0.0.1"

ONLY_FLEET = "only gateways are served here; submit runs on the SuperLink's own machine, at its local port"
"""The public port's response to any other request."""

FLEET = re.compile(r"/v1/fleet/[a-z-]+")
"""Paths served at the public port. Flower's routes have no other characters."""

STRANGERS_BYTES, NODES_BYTES = 1 << 16, 1 << 26
"""Maximum size of a request's body, in bytes: from an unknown sender, and with the key of a registered node."""

GOODBYE_SECONDS = 1
"""Time for open requests to finish when the SuperLink ends, in seconds."""

GRPC = ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API")
"""Environment variables that make Flower open further ports, to everyone."""


@dataclass(frozen=True)
class Setting:
    """Settings of a SuperLink: gateways connect to ``host``:``port`` ("" is every address of this machine), runs to
    ``local_port`` of the loopback; ``keys`` is the folder of tinyfl keys, None without TLS."""

    host: str
    port: int
    local_port: int
    database: Path
    keys: Path | None

    def check(self) -> tuple[str, ...]:
        """Warnings about certificates that expire soon. Raises ConfigError for invalid settings and certificates."""
        if self.port == self.local_port:
            raise ConfigError(f"--port and --local-port are both {self.port}. Give two different ports.")
        if self.keys is None:
            if not loopback(self.host):
                raise ConfigError(
                    f"--insecure is for gateways on this machine, but {self.host or 'every address'} is open to others. Make "
                    "keys (tinyfl keys) and give --keys."
                )
            return ()
        for name in ("ca.crt", "superlink.crt", "superlink.key"):
            if not (self.keys / name).is_file():
                raise ConfigError(f"{self.keys / name}: no such file. Make it: tinyfl keys {self.keys}")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.keys / "superlink.crt", self.keys / "superlink.key")
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"{self.keys}: superlink.crt and superlink.key do not belong together ({error}). Put the right ones there."
            ) from error
        return certificates.check_own(self.keys)

    def tls(self) -> dict[str, Any]:
        """The TLS options of Flower's programs and of uvicorn."""
        files = {"ssl_certfile": "superlink.crt", "ssl_keyfile": "superlink.key"}
        return {option: str(self.keys / name) for option, name in files.items()} if self.keys else {}


def serve_superlink(setting: Setting, allowed: Allowed, ended: threading.Event, tell: Callable[[str], None]) -> None:
    """Serves until ``ended`` is set.

    Raises ConfigError for invalid settings, LinkError if a port is taken or Flower's SuperLink ends by itself, InstallError for
    another version of Flower.
    """
    for warning in setting.check():
        tell(warning)
    if not sys.stderr.isatty():
        inner("flwr.supercore.logger", "update_console_handler").update_console_handler(colored=False)
    for name in GRPC:
        os.environ.pop(name, None)
    with ExitStack() as stack:
        public = stack.enter_context(_listening(setting.host, setting.port, "--host or --port"))
        local = stack.enter_context(_listening(LOCAL, setting.local_port, "--local-port"))
        folder = stack.enter_context(private_folder("tinyfl-superlink-"))
        prepare_environment(folder)
        _make_private(setting.database)
        secret = folder / "secret"
        secret.write_text(secrets.token_hex(32))
        app = _flower(setting, secret, allowed)
        complete = _Server(_config(setting, app))
        fleet = _Server(_config(setting, FleetOnly(app, _nodes_of(app)), lifespan="off", ws="none", http="h11"))
        tell(f"gateways at {setting.host or 'every address'}, port {setting.port}; runs at {LOCAL}:{setting.local_port}")
        asyncio.run(_serve(((complete, local), (fleet, public)), _superexec(setting, secret), ended))


async def _serve(servers: Sequence[tuple["_Server", socket.socket]], command: Sequence[str], ended: threading.Event) -> None:
    """Runs both servers, and the process that starts coordinators, until ``ended`` is set or one of them ends."""
    serving = [asyncio.create_task(server.serve(sockets=[listening])) for server, listening in servers]
    why = ""
    with Child(command, stdout=sys.stdout.fileno()) as superexec:
        while not (ended.is_set() or why):
            await asyncio.sleep(0.1)
            if any(task.done() for task in serving):
                why = "Flower's SuperLink did not start, or ended by itself"
            elif (code := superexec.process.poll()) is not None:
                why = f"Flower's SuperExec, which starts the runs, ended with code {code}"
        for server, _ in servers:
            server.should_exit = True
    await asyncio.gather(*serving)
    if why:
        raise LinkError(f"{why}. See the lines above; start it again with the same command.")


class _Server(uvicorn.Server):
    """One of two servers in a process; signals are handled by the caller."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class FleetOnly:
    """The part of Flower's app for gateways. ``is_node`` tells whether a request is signed with the key of a registered node;
    other requests are limited to a short body, since Flower reads the body before it checks the signature."""

    def __init__(self, app: ASGIApp, is_node: Callable[[Scope], bool]) -> None:
        self._app, self._is_node = app, is_node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = await self._refused(scope)
        await (refused or self._app)(scope, receive, send)

    async def _refused(self, scope: Scope) -> ASGIApp | None:
        if scope["type"] != "http" or scope["method"] != "POST" or not FLEET.fullmatch(scope["path"]):
            return _refusal(ONLY_FLEET, 403)
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not re.fullmatch(rb"\d{1,15}", length):
            return _refusal("a request needs a Content-Length", 411)
        size = int(length)
        if size <= STRANGERS_BYTES or (size <= NODES_BYTES and await run_in_threadpool(self._is_node, scope)):
            return None
        return _refusal(f"{size:,} bytes are too many", 413)


def _refusal(why: str, status: int) -> PlainTextResponse:
    return PlainTextResponse(f"{why}\n", status)


def _config(setting: Setting, app: ASGIApp, **options: Any) -> uvicorn.Config:
    http_logging = inner("flwr.supercore.http_logging", "get_uvicorn_log_config")
    options |= {"log_config": http_logging.get_uvicorn_log_config(logging.INFO), "timeout_graceful_shutdown": GOODBYE_SECONDS}
    return uvicorn.Config(app, proxy_headers=False, server_header=False, **options, **setting.tls())


def _flower(setting: Setting, secret: Path, allowed: Allowed) -> Any:
    """Creates Flower's app, restricted to known apps."""
    cli = inner("flwr.superlink.cli.flower_superlink", "_parse_superlink_lifespan_config", "SuperLinkLifespan")
    handlers = inner("flwr.superlink.servicer.control.control_handlers", "get_fab_config")
    errors = inner("flwr.supercore.error", "FlowerError", "ApiErrorCode")
    arguments = ["flower-superlink", "--host", LOCAL, "--port", str(setting.local_port), "--database", str(setting.database)]
    arguments += ["--disable-runtime-dependency-installation"]
    arguments += ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]
    arguments += (
        ["--enable-supernode-auth", "--ssl-ca-certfile", str(setting.keys / "ca.crt")] if setting.keys else ["--insecure"]
    )
    arguments += [argument for option, file in setting.tls().items() for argument in (f"--{option.replace('_', '-')}", file)]
    given, sys.argv = sys.argv, arguments  # Flower reads its settings from the command line only
    try:
        config = cli._parse_superlink_lifespan_config()
    finally:
        sys.argv = given
    try:
        app = inner("flwr.superlink.main", "create_app").create_app(config, cli.SuperLinkLifespan)
    except SQLAlchemyError as error:
        why = plain(getattr(error, "orig", None) or error)
        raise ConfigError(f"{setting.database} cannot be used ({why}). Give another --database, or move it away.") from error
    state = app.state.linkstate_factory.state()
    read, fetch = handlers.get_fab_config, state.get_fab

    def demand_known(fab: bytes) -> None:
        if why := why_refused(fab, allowed):
            raise errors.FlowerError(errors.ApiErrorCode.FORBIDDEN_ACTION, why, public_details=why)

    def read_known(fab: bytes) -> Any:
        demand_known(fab)
        return read(fab)

    def fetch_known(fab_hash: str) -> Any:
        fab = fetch(fab_hash)
        if fab is not None:
            demand_known(fab.content)
        return fab

    handlers.get_fab_config = read_known  # for each app in a request
    state.get_fab = fetch_known  # for each process that runs an app, here or at a gateway
    return app


def _nodes_of(app: Any) -> Callable[[Scope], bool]:
    """A test whether a request to ``app`` is signed with the key of a registered node, by Flower's own check."""
    node_auth = inner("flwr.superlink.routers.fleet.node_auth", "authenticate_node", "FLEET_HTTP_PUBLIC_KEY_HEADER")
    request_type = inner("flwr.proto.fleet_pb2", "ActivateNodeRequest").ActivateNodeRequest
    registered = app.state.linkstate_factory.state().get_node_id_by_public_key

    def is_node(scope: Scope) -> bool:
        request = Request({**scope, "state": {}})
        try:
            key = b64decode(request.headers[node_auth.FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            request.state.protobuf_request = request_type(public_key=key)
            node_auth.authenticate_node(request)
        except (HTTPException, KeyError, ValueError):
            return False
        return registered(key) is not None

    return is_node


def _superexec(setting: Setting, secret: Path) -> list[str]:
    command = [
        sys.executable,
        "-P",
        "-m",
        "tinyfl.deployment.superexec",
        "--runtime-api-address",
        f"{LOCAL}:{setting.local_port}",
    ]
    command += ["--root-certificates", str(setting.keys / "ca.crt")] if setting.keys else ["--insecure"]
    return [*command, "--parent-pid", str(os.getpid()), "--superexec-auth-secret-file", str(secret)]


def _listening(host: str, port: int, option: str) -> socket.socket:
    """Opens a listening socket at ``host``, or at every address if that is empty. Raises LinkError on failure."""
    everywhere = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if everywhere or ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, dualstack_ipv6=everywhere)
    except OSError as error:
        raise LinkError(
            f"nothing can be served at {host or 'every address'}, port {port} ({error.strerror or error}). End the "
            f"program that listens there, or give another {option}."
        ) from error
    # As asyncio does with its own sockets; without it, each reply is delayed by 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _make_private(database: Path) -> None:
    """Makes an existing database private, since it holds the tokens of runs."""
    for path in (database.with_name(database.name + end) for end in ("", "-wal", "-shm")):
        try:
            path.chmod(0o600)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"{path} cannot be made private ({error}). Give a --database that you own.") from error
