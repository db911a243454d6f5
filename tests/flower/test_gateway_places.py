"""Gateways where people have them: behind a proxy, with a clock that is off, over IPv6, their temporary folders cleaned."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flaky import FlakyGrid
from flwr.app import Message, RecordDict
from typer.testing import CliRunner

import tinyfl
from tinyfl.cli.show.keys import as_json
from tinyfl.deployment import submit, supernode, supernode_main
from tinyfl.deployment.gateway import Gateway
from tinyfl.deployment.keys import make_keys
from tinyfl.deployment.supernode import SuperLink
from tinyfl.errors import ConfigError, LinkError
from tinyfl.flower import extensions, messages
from tinyfl.flower.allowed import read_allowed
from tinyfl.flower.remote import call_roll
from tinyfl.runs.directory import RunDirectory
from tinyfl.system import proxies
from tinyfl.system.addresses import free_port
from tinyfl.system.child import Child

RUN = {"task": "sine", "network": "mlp-8", "devices": 2, "cohort": 2, "rounds": 2, "tasks": 2, "adapt_lr": 0.01}
OPTIONS = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in RUN.items())

CLOCK = """
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    FILE *file = clock == CLOCK_REALTIME ? fopen(getenv("CLOCK"), "r") : NULL;
    long ahead = 0;
    if (file) {
        if (fscanf(file, "%ld", &ahead) == 1)
            now->tv_sec += ahead;
        fclose(file);
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now)
        *now = exact.tv_sec;
    return exact.tv_sec;
}
"""
"""A clock that is ahead by the seconds in the file $CLOCK."""


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*proxies.NAMES, "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose clock is ahead by the seconds in the file "clock"."""
    (tmp_path / "clock.c").write_text(CLOCK)
    (tmp_path / "clock").write_text("0")
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "clock.so", tmp_path / "clock.c"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs gcc: {error}")
    return {"LD_PRELOAD": str(tmp_path / "clock.so"), "CLOCK": str(tmp_path / "clock")}


def started(line: str, log: Path, **environment: str) -> Child:
    with log.open("ab") as out:
        words = shlex.split(line)
        program = shutil.which(words[0], path=str(Path(sys.executable).parent))
        return Child([program or words[0], *words[1:]], stdout=out, stderr=out, env={**os.environ, **environment})


def until(there: Callable[[], object], log: Path, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.2)


@pytest.fixture
def superlink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a SuperLink on [::1], started as tinyfl keys prints it, that knows lab-a; "lab" for runs."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"needs IPv6: {error}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.5")  # polls take more of the processor than the work
    steps = as_json(make_keys(Path("keys"), ("::1",), ("lab-a",)))
    port, local, log = free_port(), free_port(), tmp_path / "superlink.log"
    Path("home").mkdir()
    Path("home/config.toml").write_text(steps["config"].replace(":8001", f":{local}"))
    with started(f"{steps['superlink']} --port {port} --local-port {local}", log):
        until(lambda: "Application startup complete" in log.read_text(errors="replace"), log)
        with started(steps["register"][0], log) as register:
            assert register.process.wait(300) == 0
        yield (
            steps["gateways"]["lab-a"]
            .replace(":8000", f":{port}")
            .replace(" ca.crt", " keys/ca.crt")
            .replace(" lab-a.key", " keys/lab-a.key")
        )


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder whose path is short, as a socket's must be."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.slow
def test_a_gateway_behind_a_proxy_goes_on_by_itself_when_its_clock_is_set_and_its_folder_was_removed(
    tmp_path: Path, superlink: str, clock: dict[str, str], temporary: Path
) -> None:
    expected = tinyfl.simulate(**RUN, out=tmp_path / "native").result["theta_sha256"]
    Path("fleet.toml").write_text("[[fleet]]\nnative = 2\n")
    Path("clock").write_text("20")
    log, proxy = tmp_path / "gateway.log", {"HTTPS_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}

    def told(words: str) -> bool:
        return words in log.read_text(errors="replace")

    def connected() -> bool:
        return any("SuperNode ID:" in file.read_text(errors="replace") for file in temporary.glob("*/supernode.log"))

    with started(superlink, log, **clock, **proxy, TMPDIR=str(temporary)):
        until(lambda: told("s ahead of that of the SuperLink at [::1]"), log)
        Path("clock").write_text("0")
        until(connected, log)
        (folder,) = temporary.glob("tinyfl-gateway-*")
        shutil.rmtree(folder)
        until(lambda: told(f"{folder.name} was removed"), log)
        until(connected, log)
        with started(f"tinyfl run {OPTIONS} --federation lab --out runs/lab", tmp_path / "run.log", **proxy) as run:
            assert run.process.wait(180) == 0, (tmp_path / "run.log").read_text()
    assert RunDirectory(Path("runs/lab")).result()["theta_sha256"] == expected
    assert not told("Traceback")
    assert [path.name for path in temporary.iterdir() if path.name.startswith("pymp-")] == []


def link(address: str) -> SuperLink:
    return SuperLink(address, insecure=True)


@pytest.mark.parametrize(
    ("address", "host"), [("[::1]:8000", "::1"), ("127.0.0.1:8000", "127.0.0.1"), ("localhost:1", "localhost")]
)
def test_an_address_has_its_host(address: str, host: str) -> None:
    assert link(address)._parts()[0] == host
    assert link(address).check() == ()


def test_an_address_with_a_scheme_says_to_leave_it_out() -> None:
    with pytest.raises(ConfigError, match=r"leave out https://\. Give HOST:PORT"):
        link("https://lab.example:8000").check()


@pytest.mark.parametrize("name", ["lab-a.pub", "ca.key", "ca.crt"])
def test_a_file_that_is_no_nodes_key_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make_keys(tmp_path, [], ["lab-a"])
    with pytest.raises(ConfigError, match=f"{name} is no gateway's private key"):
        SuperLink("127.0.0.1:8000", tmp_path / "ca.crt", tmp_path / name).check()


@pytest.mark.parametrize("address", ["::1:8000", "fe80::1%eth0:8000", "[::1:8000", "::1]:8000"])
def test_an_ipv6_address_without_brackets_is_refused_with_the_right_form(address: str) -> None:
    with pytest.raises(ConfigError, match=r"an IPv6 address has brackets. Give \[ADDRESS\]:PORT"):
        link(address).check()


@pytest.mark.parametrize(
    ("host", "listens"),
    [("::1", "::1"), ("localhost", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("10.1.2.3", "")],
)
def test_the_printed_superlink_listens_where_the_printed_gateways_connect(tmp_path: Path, host: str, listens: str) -> None:
    steps = as_json(make_keys(tmp_path / "keys", (host,), ("lab-a",)))
    words = shlex.split(steps["superlink"])
    assert (words[words.index("--host") + 1] if "--host" in words else "") == listens


def test_superlink_takes_an_ipv6_host_with_brackets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tinyfl.cli import app
    from tinyfl.deployment import superlink

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(superlink, "serve_superlink", lambda setting, *_: seen.append(setting.host))
    monkeypatch.setattr("tinyfl.system.interrupts.ended_by_signal", threading.Event)
    monkeypatch.setattr(os, "_exit", lambda code: None)
    seen: list[str] = []
    assert CliRunner().invoke(app, ["superlink", "--insecure", "--host", "[::1]"]).exit_code == 0
    assert seen == ["::1"]


@pytest.mark.parametrize(
    ("variables", "host", "scheme", "says"),
    [
        ({"HTTPS_PROXY": "http://user:secret@proxy:3128"}, "lab.example", "https", "http://proxy:3128, as HTTPS_PROXY says"),
        ({"https_proxy": "proxy:3128"}, "lab.example", "https", "http://proxy:3128, as https_proxy says"),
        ({"ALL_PROXY": "http://[fe80::1]:8"}, "lab.example", "https", r"http://[fe80::1]:8, as ALL_PROXY says"),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "example"}, "lab.example", "https", ""),
        ({"HTTPS_PROXY": "http://proxy:1"}, "127.0.0.1", "https", ""),
        ({"HTTP_PROXY": "http://proxy:1"}, "lab.example", "https", ""),
        ({}, "lab.example", "https", ""),
    ],
)  # fmt: skip
def test_a_superlink_that_cannot_be_reached_by_way_of_a_proxy_is_said_with_the_variable_and_no_password(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str, scheme: str, says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    invoker = SimpleNamespace(on_backoff=lambda _: None, on_success=lambda _: None)
    connection = SimpleNamespace(make_simple_http_retry_invoker=lambda: invoker)
    supernode_main.watch(connection, f"{host}:8000", told.append, scheme)
    connection.make_simple_http_retry_invoker().on_backoff(
        SimpleNamespace(tries=2, exception=OSError("refused"), elapsed_time=1.0)
    )
    (words,) = told
    assert words.startswith(f"the SuperLink at {host}:8000 cannot be reached (refused)")
    assert "secret" not in words
    if says:
        assert says in words and f"export NO_PROXY={host}" in words
    else:
        assert words == f"the SuperLink at {host}:8000 cannot be reached (refused); trying until it can"


@pytest.mark.parametrize(
    ("variables", "cure"),
    [
        ({"ALL_PROXY": "socks5://user:secret@127.0.0.1:9"}, r"pip install 'httpx\[socks\]'"),
        ({"https_proxy": "ftp://user:secret@proxy"}, "http://HOST:PORT"),
        ({"HTTPS_PROXY": "http://user:se:cret@proxy:31x28"}, "http://HOST:PORT"),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "[::1]"}, "without brackets and masks"),
        ({"HTTPS_PROXY": "http://proxy:1", "no_proxy": "::1/128"}, "without brackets and masks"),
    ],
)
def test_proxies_that_flower_cannot_use_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], cure: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if "ALL_PROXY" in variables:
        monkeypatch.setitem(sys.modules, "socksio", None)
    for tries in (link("127.0.0.1:8000").check, lambda: submit._submitted("lab", {})):
        with pytest.raises(ConfigError, match=f"({'|'.join(variables)}).*{cure}") as caught:
            tries()
        assert "cret" not in str(caught.value)


@pytest.mark.parametrize("before", ["", "lab.example", "::1,lab.example", "*"])
def test_programs_on_one_machine_reach_each_other_past_any_proxy(monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    import httpx

    environment = {"NO_PROXY": before}
    proxies.exempt_loopback(environment)
    for name, value in {**environment, "HTTP_PROXY": "http://proxy:1", "HTTPS_PROXY": "http://proxy:1"}.items():
        monkeypatch.setenv(name, value)
    with httpx.Client(verify=False) as client:
        for host in ("127.0.0.1", "localhost", "[::1]"):
            for scheme in ("http", "https"):
                assert client._transport_for_url(httpx.URL(f"{scheme}://{host}:8000")) is client._transport
        elsewhere = client._transport_for_url(httpx.URL("https://else.where:8000"))
    assert (elsewhere is client._transport) == (before == "*")


@pytest.mark.slow
def test_a_run_that_cannot_be_handed_in_by_way_of_a_proxy_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[superlink.lab]\naddress = "lab.example:8001"\ninsecure = true\n')
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(LinkError, match=r"by way of the proxy http://127.0.0.1:\d+, as http_proxy says.*NO_PROXY=lab.example"):
        submit.run_on("lab", config=None, resume=None, out=tmp_path / "run", options={"task": "sine"})


@pytest.mark.slow
def test_a_runs_result_is_known_although_the_clock_was_set_back_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = tinyfl.simulate(**RUN, out=tmp_path / "run")
    kept = (run.path / "result.json").read_bytes()
    (run.path / "result.json").unlink()

    def followed(*_: object) -> dict[str, str]:
        (run.path / "result.json").write_bytes(kept)
        os.utime(run.path / "result.json", (1e9, 1e9))
        return {"status": "finished:completed"}

    monkeypatch.setattr(submit, "_demand_home", lambda: None)
    monkeypatch.setattr(submit, "_submitted", lambda *_: "1")
    monkeypatch.setattr(submit, "_followed", followed)
    result = submit.run_on("lab", config=None, resume=run.path, out=None, options={})
    assert result["theta_sha256"] == run.result["theta_sha256"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which a socket's path is not too long, as it may be in ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_gateways_socket_that_is_removed_ends_its_supernode_and_raises_nothing(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SuperNode is a process that does nothing."""
    monkeypatch.setattr(supernode, "flower", lambda: None)
    monkeypatch.setattr(supernode, "prepare_environment", lambda _: None)
    monkeypatch.setattr(supernode, "_command", lambda *_: ["sleep", "600"])
    monkeypatch.setattr("tempfile.tempdir", str(short_path))
    told: list[str] = []
    ended = threading.Event()
    answer: Any = None
    serving = threading.Thread(target=supernode.serve_federation, args=(link("127.0.0.1:1"), answer, ended, told.append))
    serving.start()
    folders = []
    for _ in range(2):
        until(lambda: list(short_path.glob("*/supernode.log")), Path(os.devnull))
        (folder,) = short_path.iterdir()
        folders.append(folder)
        shutil.rmtree(folder)
        until(lambda: len(told) == len(folders), Path(os.devnull))
    ended.set()
    serving.join(120)
    assert not serving.is_alive() and not list(short_path.iterdir())
    assert [words.split(" was removed")[0] for words in told] == list(map(str, folders))


def gateways(versions: dict[int, str], told: list[str], monkeypatch: pytest.MonkeyPatch) -> FlakyGrid:
    """Two gateways with half of the fleet each, of these versions of tinyfl."""
    site = SimpleNamespace(boards=(), stations=("simulated",))

    def at(node: int) -> Any:
        devices = range(12 * (node - 1), 12 * node)
        gateway = Gateway(f"lab-{node}", SimpleNamespace(**vars(site), devices=devices), read_allowed(), tell=told.append)  # type: ignore[arg-type]

        def said(message: Message) -> Any:
            with monkeypatch.context() as there:
                for module in (extensions, messages):
                    there.setattr(module, "__version__", versions[node])
                return gateway(message.metadata.message_type, message.content, {})

        return said

    return FlakyGrid({node: at(node) for node in versions})


def test_gateways_of_one_version_are_in_the_roll_call(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    same = gateways({1: tinyfl.__version__, 2: tinyfl.__version__}, told, monkeypatch)
    assert [node.name for node in call_roll(same, 24, within=1)] == ["lab-1", "lab-2"]
    assert told == []


def test_a_gateway_of_another_version_ends_the_run_in_the_roll_call_and_both_sides_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    with pytest.raises(ConfigError, match=r"lab-2: the run is of tinyfl .*, and here is 9.9. Install the same version"):
        call_roll(gateways({1: tinyfl.__version__, 2: "9.9"}, told, monkeypatch), 24, within=60)
    assert told == [f"refuses a run: the run is of tinyfl {tinyfl.__version__}, and here is 9.9. {messages.SAME_VERSION}"]


@pytest.mark.parametrize("version", ["0.0.9", None, "\x1b]0;title\x07", 7])
def test_a_gateway_that_does_not_compare_versions_is_named_by_the_coordinator(version: Any) -> None:
    def said(message: Message) -> RecordDict:
        reply = messages.shard_record("lab", range(24))
        if version is None:
            del reply["shard"][messages.VERSION]  # type: ignore[union-attr]
        else:
            reply["shard"][messages.VERSION] = version  # type: ignore[index]
        return reply

    with pytest.raises(ConfigError, match=r"lab has tinyfl .*, and the run is of .*Install the same version") as caught:
        call_roll(FlakyGrid({1: said}), 24, within=60)
    assert str(caught.value).isprintable()
