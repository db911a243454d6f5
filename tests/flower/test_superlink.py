"""A real SuperLink with TLS and node keys: what strangers reach of it, over tinyfl and over nginx, and which apps it takes."""

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import ssl
import stat
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import pytest
from apps import bundle, changed
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto import control_pb2 as control
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.fab import Fab as Stored
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from hypothesis import given
from hypothesis import strategies as st

from tinyfl.deployment import inner as inner_parts
from tinyfl.deployment import superlink
from tinyfl.deployment.inner import inner
from tinyfl.deployment.keys import make_keys
from tinyfl.deployment.superexec import MAX_TASKS, Tasks
from tinyfl.deployment.superlink import FLEET, NODES_BYTES, STRANGERS_BYTES, FleetOnly, Setting, serve_superlink
from tinyfl.errors import ConfigError, InstallError, LinkError
from tinyfl.flower.allowed import Allowed
from tinyfl.system.addresses import free_port
from tinyfl.system.child import Child

ROOT = Path(__file__).resolve().parents[2]
TINYFL = Path(sys.executable).with_name("tinyfl")
LISTED = """
import os
from pathlib import Path
from time import sleep
from flwr.serverapp import ServerApp

app = ServerApp()
Path("executed").write_text(os.environ["FLWR_HOME"])

@app.main()
def main(grid, context):
    sleep(600)
"""
NGINX = """
worker_processes 1; daemon off; pid nginx.pid; error_log nginx.log;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include site.conf;
}
"""


@dataclass(frozen=True)
class Served:
    """A SuperLink that runs in ``folder``: its local port, its public ones by what serves them, and its process."""

    folder: Path
    local: int
    public: dict[str, int]
    child: Child

    @property
    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "keys" / "ca.crt"))

    def post(self, path: str, body: bytes) -> httpx.Response:
        """Flower's answer to a request from this machine."""
        headers = {"content-type": "application/protobuf"}
        return httpx.post(
            f"https://127.0.0.1:{self.local}{path}", content=body, headers=headers, verify=self.trusted, timeout=60
        )

    def routes(self) -> list[str]:
        """All that Flower serves, as it says itself."""
        url = f"https://127.0.0.1:{self.local}/openapi.json"
        return list(httpx.get(url, verify=self.trusted, timeout=60).json()["paths"])

    def raw(self, port: int, request: bytes) -> bytes:
        """All that comes back for these bytes, until the other side closes."""
        plain = socket.create_connection(("127.0.0.1", port), 20)
        with plain, self.trusted.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            with suppress(OSError):  # what is too long is answered before it is read
                connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    def runs(self) -> int:
        answer = self.post("/v1/control/list-runs", control.ListRunsRequest().SerializeToString())
        return len(control.ListRunsResponse.FromString(answer.content).run_dict)


def fab_of(app: bytes) -> Fab:
    return Fab(hash_str=hashlib.sha256(app).hexdigest(), content=app)


@pytest.fixture(scope="module")
def listed() -> bytes:
    """An app with code of its own, which the operator allows."""
    return bundle(changed("tool.flwr.app.components.serverapp", "own:app"), {"own.py": LISTED})


@pytest.fixture(scope="module")
def served(listed: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, local, public = tmp_path_factory.mktemp("superlink"), free_port(), {"tinyfl": free_port()}
    make_keys(folder / "keys", [], ["lab-a"])
    (folder / "tmp").mkdir()
    (folder / "superlink.db").touch(0o644)  # as flower-superlink leaves it
    (folder / "allowed.toml").write_text(f'apps = ["{hashlib.sha256(listed).hexdigest()}"]\n')
    command = [
        str(TINYFL), "superlink", "--host", "127.0.0.1", "--port", str(public["tinyfl"]), "--local-port", str(local),
        "--allow", "allowed.toml",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as set, (folder / "log").open("wb") as log:
        set.setenv("TMPDIR", str(folder / "tmp"))
        set.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")  # would open a port to everyone
        set.chdir(folder)
        with Child(command, stdout=log, stderr=log) as child:
            made = Served(folder, local, public, child)
            until(lambda: listening(local))
            if shutil.which("nginx") is None:
                yield made
                return
            public["nginx"] = free_port()
            site = (ROOT / "docs" / "superlink.nginx.conf").read_text().replace("/etc/superlink", str(folder / "keys"))
            site = site.replace("listen 8000", f"listen 127.0.0.1:{public['nginx']}").replace(":8001", f":{local}")
            (folder / "site.conf").write_text(site)
            (folder / "nginx.conf").write_text(NGINX)
            with Child(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stdout=log, stderr=log):
                until(lambda: listening(public["nginx"]))
                yield made


def until(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["tinyfl", "nginx"])
def port(served: Served, request: pytest.FixtureRequest) -> int:
    """The public port, by each way to have one."""
    if request.param not in served.public:
        pytest.skip("needs nginx: apt-get install nginx-light")
    return served.public[request.param]


def test_of_all_routes_strangers_reach_those_of_gateways_alone(served: Served, port: int) -> None:
    routes = served.routes()
    with httpx.Client(verify=served.trusted, timeout=60, headers={"content-type": "application/protobuf"}) as client:
        assert {"/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/pull-messages", "/health"} <= set(routes)
        for path in [*routes, "/docs", "/openapi.json", "/redoc", "/", "/v1", "/v1/fleet", "/v1/fleet/"]:
            url = f"https://127.0.0.1:{port}{path}"
            answers = {method: client.request(method, url).status_code for method in ("GET", "POST", "HEAD", "OPTIONS")}
            if path in routes and path.startswith("/v1/fleet/"):
                assert answers.pop("POST") == 401, path  # Flower asks for a node's signature
            assert set(answers.values()) == {403}, path
    assert served.runs() == 0


TARGETS = [
    "/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs", "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/%2e%2e%2fcontrol%2flist-runs", "/v1/fleet/..;/control/list-runs", "/v1/fleet//../control/list-runs",
    "//v1/control/list-runs", "/v1//control/list-runs", "/./v1/control/list-runs", "/V1/CONTROL/list-runs",
    "/v1/%63ontrol/list-runs", "/v1/control/list-runs?/v1/fleet/pull-messages", "/v1/control/list-runs#/v1/fleet/pull-messages",
    "/v1/control/list-runs/../../fleet/pull-messages", "/v1/control/list-runs%3f/../../fleet/pull-messages",
    "/v1/control/list-runs%00/v1/fleet/x", "/v1/fleet/\\..\\control\\list-runs", "/v1/fleet/%252e%252e/control/list-runs",
    "https://127.0.0.1/v1/control/list-runs", "http://x/v1/fleet/../control/list-runs", "https://x/v1/control/list-runs#/v1/fleet/x",
    "/v1/fleet/pull-messages%0d%0aX: y", "*", "127.0.0.1:80", "v1/control/list-runs", "/%76%31/runtime/acquire-task",
]  # fmt: skip


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("target", TARGETS)
def test_no_way_to_write_a_path_leads_past_the_gate(served: Served, port: int, target: str, version: str) -> None:
    request = f"POST {target} HTTP/{version}\r\nHost: x\r\nContent-Type: application/protobuf\r\n"
    said = served.raw(port, f"{request}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
    assert statuses(said) <= {400, 401, 403, 404, 405}, said


def statuses(said: bytes) -> set[int]:
    return {int(part[2:5]) for part in (b"x" + said).split(b"HTTP/1.")[1:]}


INNER = b"POST /v1/control/list-runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/protobuf\r\nContent-Length: 0\r\n\r\n"
FLEET_POST = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/protobuf\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
TRICKS = {
    "a second request": FLEET_POST + b"Content-Length: 0\r\n\r\n" + INNER + CLOSE,
    "two lengths": FLEET_POST + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER + CLOSE,
    "a length and chunks": FLEET_POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER + CLOSE,
    "chunks": FLEET_POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    "odd chunks": FLEET_POST + b"Transfer-Encoding: xchunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER + CLOSE,
    "a length of words": FLEET_POST + b"Content-Length: ten\r\nConnection: close\r\n\r\n",
    "another host": b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x/v1/runtime/push-object?\r\nContent-Length: 0\r\n"
    b"Content-Type: application/protobuf\r\nConnection: close\r\n\r\n",
    "a rewritten path": FLEET_POST + b"X-Original-URL: /v1/control/list-runs\r\nX-Rewrite-URL: /v1/control/list-runs\r\n"
    b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Prefix: /v1/control\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "a websocket": b"GET /v1/control/list-runs HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + CLOSE,
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no protocol": b"\x16\x03\x01\x00\xff" * 20 + b"\r\n\r\n",
    "headers without end": b"POST /v1/fleet/x HTTP/1.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("kind", TRICKS)
def test_no_request_hides_another(served: Served, port: int, kind: str) -> None:
    try:
        said = served.raw(port, TRICKS[kind])
    except (ConnectionError, ssl.SSLError):  # closed before all was sent
        return
    assert statuses(said) <= {400, 401, 403, 404, 405, 411, 414, 431, 501}, said


def test_a_strangers_long_body_is_refused_before_it_is_read(served: Served) -> None:
    head = FLEET_POST + b"Content-Length: %d\r\nConnection: close\r\n\r\n"
    for size in (STRANGERS_BYTES + 1, NODES_BYTES, 10**12):
        assert statuses(served.raw(served.public["tinyfl"], head % size)) == {413}
    assert statuses(served.raw(served.public["tinyfl"], head % STRANGERS_BYTES + b"\0" * STRANGERS_BYTES)) == {400}


def test_a_registered_nodes_long_body_is_read_and_one_without_end_is_not(served: Served) -> None:
    key: Any = load_ssh_private_key((served.folder / "keys" / "lab-a.key").read_bytes(), None)
    public = public_key_to_bytes(key.public_key())

    def answered(size: int) -> set[int]:
        """What is said to a signed request with a body of ``size``, of which so much is sent as is ever read."""
        signed = now().isoformat()
        headers = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public).decode(), TIMESTAMP_HEADER: signed, "Connection": "close",
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, signed.encode())).decode(), "Content-Length": size,
        }  # fmt: skip
        head = FLEET_POST + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"
        return statuses(served.raw(served.public["tinyfl"], head + b"\0" * min(size, STRANGERS_BYTES + 1)))

    assert answered(STRANGERS_BYTES + 1) == {413}
    served.post("/v1/control/register-node", control.RegisterNodeRequest(public_key=public).SerializeToString())
    assert answered(STRANGERS_BYTES + 1) == {400}  # Flower has read it, and found no message
    assert answered(NODES_BYTES + 1) == {413}


STRANGERS = {
    "a file of its own": bundle(files={"own.py": LISTED}),
    "a package in place of tinyfl": bundle(files={"tinyfl/__init__.py": LISTED}),
    "foreign components": bundle(changed("tool.flwr.app.components.serverapp", "own:app"), {"own.py": LISTED + "#"}),
    "a module that is installed": bundle(changed("tool.flwr.app.components.serverapp", "this:d")),
    "a dependency": bundle(changed("project.dependencies", ["tinyfl", "own @ file:///tmp/own"])),
    "an installer's settings": bundle(changed("tool.uv", {"index-url": "http://127.0.0.1:1"})),
    "a path of its own": bundle(changed("project.version", "1/../../../x")),
    "an agent": bundle(changed("tool.flwr.app.components", {"agentapp": "own:app"}), {"own.py": LISTED}),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_strangers_app_is_refused_with_the_reason_and_leaves_nothing(served: Served, kind: str) -> None:
    run = control.StartRunRequest(fab=fab_of(STRANGERS[kind]), series_id=1)
    later = control.StartAutomationRequest(start_run_request=run)
    for path, asked in (("start-run", run), ("start-automation", later)):
        refused = served.post(f"/v1/control/{path}", asked.SerializeToString())
        assert (refused.status_code, "this app may not run here: it" in refused.text) == (412, True), refused.text
        assert run.fab.hash_str in refused.json()["extra"]
    assert served.runs() == 0
    assert not list(served.folder.rglob("executed"))
    assert not list(served.folder.rglob("apps"))


def test_nobody_on_this_machine_takes_a_runs_token_or_does_a_runs_work(served: Served) -> None:
    asked = AcquireTaskRequest(supported_task_types=["flwr-serverapp"]).SerializeToString()
    assert served.post("/v1/runtime/acquire-task", asked).status_code == 401
    for path in served.routes():
        if path.startswith("/v1/runtime/"):
            assert served.post(path, b"").status_code == 401, path


def test_a_listed_app_runs_with_no_token_in_a_command_line_and_all_ends_at_a_signal(served: Served, listed: bytes) -> None:
    answer = served.post("/v1/control/start-run", control.StartRunRequest(fab=fab_of(listed)).SerializeToString())
    assert control.StartRunResponse.FromString(answer.content).run_id
    executed = served.folder / "executed"  # which the tests above would have seen too
    until(lambda: executed.exists() and executed.read_text())
    assert Path(executed.read_text()).parent == served.folder / "tmp"  # no app of an earlier day is taken for this one
    (coordinator,) = [words for words in processes(served) if any(b"flwr-serverapp" in word for word in words)]
    assert (b"--token" in coordinator, b"--token-file" in coordinator) == (False, True)
    for path in (executed, *served.folder.glob("superlink.db*")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    os.kill(served.child.process.pid, signal.SIGTERM)
    assert served.child.process.wait(60) == 0
    assert processes(served) == []
    assert list((served.folder / "tmp").iterdir()) == []


def processes(served: Served) -> list[list[bytes]]:
    """The command lines, in words, of what this SuperLink has started."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            lines.append(path.read_bytes().split(b"\0"))
    return [words for words in lines if f"127.0.0.1:{served.local}".encode() in words]


@given(
    st.text() | st.from_regex(FLEET),
    st.sampled_from(["GET", "POST", "post", "PROPFIND"]),
    st.sampled_from(["http", "websocket"]),
)
def test_only_posts_to_fleet_paths_pass(path: str, method: str, kind: str) -> None:
    passed = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    async def nothing(*_: Any) -> dict[str, Any]:
        return {}

    scope = {"type": kind, "method": method, "path": path, "headers": [(b"content-length", b"0")]}
    if kind == "websocket":
        del scope["method"]
    asyncio.run(FleetOnly(app, lambda _: False)(scope, nothing, nothing))
    assert bool(passed) == (kind == "http" and method == "POST" and FLEET.fullmatch(path) is not None)


def setting(folder: Path, **other: Any) -> Setting:
    return Setting(**{"host": "127.0.0.1", "port": 1, "local_port": 2, "database": folder / "db", "keys": None, **other})


@pytest.mark.slow
def test_an_app_that_an_unguarded_superlink_took_never_leaves_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = inner("flwr.superlink.servicer.control.control_handlers")
    monkeypatch.setattr(handlers, "get_fab_config", handlers.get_fab_config)  # put back afterwards
    (tmp_path / "secret").write_bytes(b"0")
    app = superlink._flower(setting(tmp_path), tmp_path / "secret", Allowed(frozenset(), ()))
    state = app.state.linkstate_factory.state()
    theirs, ours = STRANGERS["a file of its own"], bundle()
    for content in (theirs, ours):
        state.store_fab(Stored(hashlib.sha256(content).hexdigest(), content, {}))
    assert state.get_fab(hashlib.sha256(ours).hexdigest()).content == ours
    with pytest.raises(Exception, match="may not run here"):
        state.get_fab(hashlib.sha256(theirs).hexdigest())


@pytest.mark.parametrize("option", ["port", "local_port"])
def test_a_port_that_is_taken_is_said_before_anything_is_started(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = setting(tmp_path, **{"port": free_port(), "local_port": free_port(), option: taken.getsockname()[1]})
        with pytest.raises(LinkError, match=f"port {taken.getsockname()[1]} .*another .*--{option.replace('_', '-')}"):
            serve_superlink(at, Allowed(frozenset(), ()), threading.Event(), print)
    assert not (tmp_path / "db").exists()


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    make_keys(tmp_path, [], [])
    setting(tmp_path, keys=tmp_path).check()
    for host in ("", "0.0.0.0", "::", "192.168.1.1", "lab.example"):
        with pytest.raises(ConfigError, match="--insecure is for gateways on this machine"):
            setting(tmp_path, host=host).check()
    with pytest.raises(ConfigError, match="both 7"):
        setting(tmp_path, port=7, local_port=7).check()
    with pytest.raises(ConfigError, match="tinyfl keys"):
        setting(tmp_path, keys=tmp_path / "absent").check()
    (tmp_path / "superlink.key").write_text("no key")
    with pytest.raises(ConfigError, match="do not belong together"):
        setting(tmp_path, keys=tmp_path).check()


@pytest.mark.parametrize("name", ["absent/x.db", "text.db", "folder.db"])
def test_a_database_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be taken for one" * 9)
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "secret").write_bytes(b"0")
    with pytest.raises(ConfigError, match=f"{name} cannot be used"):
        superlink._flower(setting(tmp_path, database=tmp_path / name), tmp_path / "secret", Allowed(frozenset(), ()))


def test_another_flwr_is_refused_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_parts, "version", lambda _: "1.42.0")
    with pytest.raises(InstallError, match=r"not 1\.42\.0: pip install flwr==1\.41\.0"):
        superlink._flower(setting(tmp_path), tmp_path, Allowed(frozenset(), ()))
    monkeypatch.undo()
    for part in ("flwr.superlink.cli.flower_superlink", "flwr.supercore.error"):
        with pytest.raises(InstallError, match=r"has no attribute 'gone'.*pip install flwr==1\.41\.0"):
            inner(part, "gone")
    with pytest.raises(InstallError, match="pip install"):
        inner("flwr.gone")


def test_a_task_reads_its_token_from_an_input_that_has_no_name() -> None:
    read = "import sys; print(sys.argv[1:], open(sys.argv[-1]).read())"
    process = Tasks().popen([sys.executable, "-c", read, "--x", "1", "--token", "s3cret"], stdout=-1)
    said = process.communicate()[0].decode()
    assert said == "['--x', '1', '--token-file', '/dev/stdin'] s3cret\n"


def test_a_messages_process_is_a_fork_with_no_command_line_of_its_own() -> None:
    tasks = Tasks()
    tasks.start(["flwr-clientapp", "--token", "s3cret", "--no-such-option"])
    (fork,) = tasks._running
    assert isinstance(fork, BaseProcess)
    words = Path(f"/proc/{fork.pid}/cmdline")
    assert not words.exists() or b"s3cret" not in words.read_bytes()
    fork.join()
    assert fork.exitcode == 2, "Flower's program read its options"
    assert tasks.eligible({"flwr-clientapp"}) == ({"flwr-clientapp"}, set())


def test_only_so_many_tasks_are_at_hand_and_only_of_the_kinds_of_a_known_app() -> None:
    tasks, kinds = Tasks(), {"flwr-serverapp", "flwr-clientapp", "flwr-agentapp", "flwr-model", "flwr-simulation"}
    assert tasks.eligible(kinds) == ({"flwr-serverapp", "flwr-clientapp"}, set())
    running = [tasks.popen([sys.executable, "-c", "import time; time.sleep(600)", "--token", "x"]) for _ in range(MAX_TASKS)]
    try:
        assert tasks.eligible(kinds) == (set(), set())
        running[0].kill()
        running[0].wait()
        assert tasks.eligible(kinds) == ({"flwr-serverapp", "flwr-clientapp"}, set())
    finally:
        for process in running:
            process.kill()
            process.wait()
