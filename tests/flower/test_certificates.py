"""Certificates that have expired, or will soon: what a gateway says of them, and what it says to do."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyfl.deployment import certificates, keys, supernode
from tinyfl.deployment.certificates import ClockError
from tinyfl.deployment.keys import make_keys
from tinyfl.deployment.submit import run_on
from tinyfl.deployment.superlink import Setting
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
def superlink(folder: Path, clock: float | None = None) -> Iterator[str]:
    """What shows the certificate of ``folder`` to whoever connects; and the time of a clock that is ahead by ``clock``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "superlink.crt", folder / "superlink.key")
    with socket.create_server(("", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    with connection, context.wrap_socket(connection, server_side=True) as tls:
                        if clock is not None and tls.recv(1000):
                            tls.sendall(f"HTTP/1.1 403 Forbidden\r\ndate: {http_date(clock)}\r\n\r\n".encode())
                except ssl.SSLError:
                    continue
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def http_date(ahead: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)


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


@pytest.mark.parametrize(
    ("ago", "days", "ca_days", "why"),
    [
        (0, 365, 3650, ""),
        (40, 30, 3650, f"superlink.crt expired on {day(-10)}. Issue a new one: tinyfl keys .*keys; then start the SuperLink"),
        (40, 30, 30, f"ca.crt expired on {day(-10)}. Make another CA"),
        (-2, 365, 3650, "is not valid before .* UTC, and the clock of this machine says"),
    ],
    ids=["well", "expired", "CA expired", "of tomorrow"],
)
def test_a_superlink_refuses_to_start_with_a_certificate_that_no_gateway_would_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ago: int, days: int, ca_days: int, why: str
) -> None:
    setting = Setting("", 8000, 8001, tmp_path / "x.db", made(tmp_path / "keys", monkeypatch, ago, days, ca_days))
    if not why:
        assert setting.check() == ()
        return
    with pytest.raises(ConfigError, match=why):
        setting.check()


def test_a_superlink_says_at_its_start_that_its_certificate_expires_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "keys", monkeypatch, ago=20, days=30)
    (warning,) = Setting("", 8000, 8001, tmp_path / "x.db", folder).check()
    assert warning.startswith(f"{folder}/superlink.crt expires on {day(10)}, in 9 days. Issue a new one: tinyfl keys {folder};")
    (folder / "ca.key").unlink()  # moved away, as it should be
    (warning,) = Setting("", 8000, 8001, tmp_path / "x.db", folder).check()
    assert "Where the keys are, tinyfl keys FOLDER" in warning


def test_an_address_that_a_certificate_lacks_is_said_with_the_command_that_adds_it(tmp_path: Path) -> None:
    make_keys(tmp_path, ["lab.example"], ["lab-a"])
    with superlink(tmp_path) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(
            ConfigError, match=r"is for other addresses, not for 127\.0\.0\.2\. .* tinyfl keys FOLDER --host 127"
        ):
            certificates.check(f"127.0.0.2:{port}", "127.0.0.2", port, tmp_path / "ca.crt")


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
        supernode._when_valid(shown, threading.Event(), told.append)
    assert len(told) == 1
    assert "expired on" in told[0]


@pytest.mark.slow
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


def test_the_clocks_bounds_are_flowers() -> None:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert (certificates.AHEAD, certificates.BEHIND) == (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)


@pytest.mark.parametrize(
    ("ahead", "why"),
    [
        (None, ""),
        (3, ""),
        (-280, ""),
        (8, r"clock is [78] s ahead of that of the SuperLink at 127.0.0.1"),
        (-320, r"clock is 32[01] s behind that of the SuperLink"),
        (-3 * 86400, r"clock is 259,20\d s behind"),
        (2**32, r"clock is 4,294,967,\d\d\d s ahead"),
    ],
)
def test_a_clock_that_flower_would_refuse_is_said_in_seconds_with_the_cure(
    tmp_path: Path, ahead: float | None, why: str
) -> None:
    make_keys(tmp_path / "keys", (), ("lab-a",))
    with superlink(tmp_path / "keys", None if ahead is None else -ahead) as address:
        if not why:
            assert link(address, tmp_path / "keys").check() == ()
            return
        with pytest.raises(ClockError, match=why + r".*timedatectl set-ntp true"):
            link(address, tmp_path / "keys").check()


@pytest.mark.parametrize(
    ("ago", "days", "ca_days", "clock"),
    [(-3, 365, 3650, 3), (40, 30, 3650, -20), (40, 30, 30, -20)],
    ids=["not valid yet", "expired", "CA expired"],
)
def test_a_certificate_is_not_to_blame_for_a_clock_that_is_days_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ago: int, days: int, ca_days: int, clock: int
) -> None:
    folder = made(tmp_path / "keys", monkeypatch, ago=ago, days=days, ca_days=ca_days)
    with superlink(folder, clock * 86400.0) as address, pytest.raises(ClockError, match="this machine's clock is"):
        link(address, folder).check()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=60).map(lambda text: f"date: {text}\r\n\r\n".encode()))
@example(b"date: Sun, 29 Nov 2026 10:00:00 -0000\r\n\r\n")
@example(b"date: Sun, 29 Nov 2026 10:00:00 +999999\r\n\r\n")
def test_no_answer_of_a_server_that_is_no_superlink_is_taken_for_a_time_or_fails(answer: bytes) -> None:
    class Answering:
        def __init__(self) -> None:
            self.sent = iter([answer])

        def sendall(self, _: bytes) -> None: ...

        def recv(self, _: int) -> bytes:
            return next(self.sent, b"")

    assert isinstance(certificates._ahead(Answering(), "host"), float)  # type: ignore[arg-type]


def test_a_gateway_whose_clock_is_off_says_so_once_and_goes_on_when_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look sees another number of seconds, which is no news."""
    make_keys(tmp_path, (), ("lab-a",))
    told: list[str] = []
    clocks = iter([9.0, 8.0, 7.0, 2.0])
    monkeypatch.setattr(supernode, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(certificates, "_ahead", lambda *_: next(clocks))
    with superlink(tmp_path) as address:
        supernode._when_valid(link(address, tmp_path), threading.Event(), told.append, ClockError)
    assert len(told) == 1 and "clock is 9 s ahead" in told[0]
    assert next(clocks, None) is None


def test_a_log_of_tls_keys_that_cannot_be_written_is_said_and_no_certificate_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path, (), ("lab-a",))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys.log"))
    with pytest.raises(ConfigError, match=r"keys.log, the SSLKEYLOGFILE in the environment, cannot be written. Unset"):
        link("127.0.0.1:1", tmp_path).check()
