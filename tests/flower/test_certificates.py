"""Certificates that have expired, or will soon: what a gateway says of them, and what it says to do."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tinyfl.deployment import certificates, keys, supernode
from tinyfl.deployment.keys import make_keys
from tinyfl.deployment.submit import run_on
from tinyfl.deployment.supernode import SuperLink
from tinyfl.errors import ConfigError
from tinyfl.system.addresses import free_port

NOW = datetime.now(UTC).replace(microsecond=0)


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, ago: int = 0, days: int = 365, ca_days: int = 3650) -> Path:
    """Keys as tinyfl keys made them so many days ago."""
    monkeypatch.setattr(keys, "_now", lambda: NOW - timedelta(days=ago))
    monkeypatch.setattr(keys, "CA_DAYS", ca_days)
    make_keys(folder, (), ("lab-a",), days=days)
    monkeypatch.undo()
    return folder


@contextmanager
def superlink(folder: Path) -> Iterator[str]:
    """What shows the certificate of ``folder`` to whoever connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "superlink.crt", folder / "superlink.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    with connection:
                        context.wrap_socket(connection, server_side=True).close()
                except ssl.SSLError:
                    continue
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def link(address: str, folder: Path) -> SuperLink:
    return SuperLink(address, folder / "ca.crt", folder / "lab-a.key")


def day(days: int) -> str:
    return f"{NOW + timedelta(days=days):%Y-%m-%d}"


@pytest.mark.parametrize(
    ("ago", "days", "ca_days", "why"),
    [
        (0, 365, 3650, ""),
        (
            40,
            30,
            3650,
            f"the certificate of the SuperLink at 127.0.0.1:.* expired on {day(-10)}. Where the keys are, tinyfl keys",
        ),
        (40, 30, 30, f"ca.crt expired on {day(-10)}. Make another CA"),
        (-2, 365, 3650, "is not valid yet; the clock of this machine says .* UTC. Set the clock"),
    ],
    ids=["well", "expired", "CA expired", "of tomorrow"],
)
def test_a_certificate_that_has_expired_is_said_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ago: int, days: int, ca_days: int, why: str
) -> None:
    folder = made(tmp_path / "keys", monkeypatch, ago, days, ca_days)
    with superlink(folder) as address:
        if not why:
            assert link(address, folder).check() == ()
            return
        with pytest.raises(ConfigError, match=why):
            link(address, folder).check()


def test_certificates_that_expire_soon_are_a_word_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "keys", monkeypatch, ago=20, days=30, ca_days=40)
    with superlink(folder) as address:
        words = link(address, folder).check()
    assert [word.split(". ")[0] for word in words] == [
        f"{folder}/ca.crt expires on {day(20)}, in 19 days",
        f"the certificate of the SuperLink at {address} expires on {day(10)}, in 9 days",
    ]
    assert "ca.crt expires" in link(f"127.0.0.1:{free_port()}", folder).check()[0], "also where no SuperLink answers yet"


def test_the_cure_for_an_expired_certificate_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "keys", monkeypatch, ago=40, days=30)
    of_gateway = tmp_path / "gateway"
    of_gateway.mkdir()
    for name in ("ca.crt", "lab-a.key"):
        (of_gateway / name).write_bytes((folder / name).read_bytes())
    make_keys(folder, (), ())  # tinyfl keys FOLDER
    with superlink(folder) as address:
        assert link(address, of_gateway).check() == ()


def test_a_gateway_whose_superlink_has_expired_says_so_once_and_goes_on_when_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "keys", monkeypatch, ago=40, days=30)
    told: list[str] = []
    looks = iter(range(10))
    monkeypatch.setattr(supernode, "RETRY_SECONDS", 0.0)
    with superlink(folder) as address:
        shown = link(address, folder)

        def check() -> tuple[str, ...]:
            if next(looks) == 3:
                return ()
            return certificates.check(address, "127.0.0.1", int(address.rpartition(":")[2]), folder / "ca.crt")

        object.__setattr__(shown, "check", check)
        supernode._wait_for_certificate(shown, threading.Event(), told.append)
    assert len(told) == 1
    assert "expired on" in told[0]


def test_a_run_that_cannot_be_handed_in_because_of_a_certificate_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "keys", monkeypatch, ago=40, days=30)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    with superlink(folder) as address:
        entry = f'[superlink.lab]\naddress = "{address}"\nroot-certificates = "{folder}/ca.crt"\n'
        (tmp_path / "config.toml").write_text(entry)
        with pytest.raises(ConfigError, match=f"certificate of the SuperLink at {address} expired on {day(-10)}"):
            run_on("lab", config=None, resume=None, out=tmp_path / "run", options={"task": "sine"})
