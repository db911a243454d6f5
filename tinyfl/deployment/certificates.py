"""Checks of certificates: a SuperLink's, with the clock, before any other request to it; its own, before it listens."""

import os
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from tinyfl.deployment.keys import SOON
from tinyfl.errors import ConfigError
from tinyfl.system import clock

CHECK_SECONDS = 5.0
"""Time limit for a SuperLink to present its certificate, in seconds."""

AHEAD, BEHIND = 5, 305
"""The seconds by which a node's clock may be ahead of its SuperLink's, and behind it: Flower's SYSTEM_TIME_TOLERANCE, and that
plus its TIMESTAMP_TOLERANCE."""

MAX_HEAD_BYTES = 1 << 14
"""Maximum size of the head of a SuperLink's response, in bytes."""

EXPIRED, NOT_YET = 10, 9
"""OpenSSL's codes, X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""

OTHER_NAME = (62, 64)
"""OpenSSL's codes, X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

NEW_CERTIFICATE = (
    "Where the keys are, tinyfl keys FOLDER issues a new superlink.crt; copy it to the SuperLink's machine, and restart the "
    "SuperLink. Gateways keep their files."
)
NEW_CA = (
    "Make another CA (tinyfl keys NEW-FOLDER, with the same --host as before), start the SuperLink with its certificates, and "
    "give each gateway its ca.crt. The nodes keep their own keys."
)


class ClockError(ConfigError):
    """The clocks of this machine and the SuperLink differ too much. It passes when one of them is set."""


def check(address: str, host: str, port: int, root: Path, *, signs: bool = False) -> tuple[str, ...]:
    """Warnings about certificates that expire within keys.SOON: the CA's, in the file ``root``, and the one presented by the
    SuperLink at ``host`` and ``port``. A SuperLink without an answer is no error: it may start later.

    Raises ConfigError for a certificate that has expired, or was not issued by ``root``, ClockError if this machine's clock is
    the reason, or if Flower would refuse it in a request that a node ``signs`` with the time.
    """
    try:
        context = ssl.create_default_context(cafile=str(root))
        until = min(_datetime(authority["notAfter"]) for authority in context.get_ca_certs())
    except (ssl.SSLError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.filename == (keys := os.environ.get("SSLKEYLOGFILE")) and keys:
            raise ConfigError(
                f"{keys}, the SSLKEYLOGFILE in the environment, cannot be written. Unset that variable."
            ) from error
        raise ConfigError(f"{root} is no certificate ({error}). Give the ca.crt made by tinyfl keys.") from error
    if until < _now():
        _demand_clock(address, host, port)
        raise ConfigError(f"{root} expired on {until:%Y-%m-%d}. {NEW_CA}")
    warnings = _expiry_warning(str(root), until, NEW_CA)
    try:
        with (
            socket.create_connection((host, port), CHECK_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            expiry = _datetime((tls.getpeercert() or {})["notAfter"])
            if signs:
                _refuse(address, _ahead(tls, host))
            return warnings + _expiry_warning(f"the certificate of the SuperLink at {address}", expiry, NEW_CERTIFICATE)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (EXPIRED, NOT_YET):
            _demand_clock(address, host, port)
        raise ConfigError(_fault(address, host, port, root, error)) from error
    except ssl.SSLError as error:
        raise ConfigError(
            f"the SuperLink at {address} does not speak TLS ({error}). Start it with its certificates."
        ) from error
    except OSError:
        return warnings


def check_own(folder: Path) -> tuple[str, ...]:
    """Warnings about the SuperLink's own certificates in ``folder`` that expire within keys.SOON.

    Raises ConfigError for one that is not valid now.
    """
    from cryptography import x509

    warnings = tuple[str, ...]()
    here = (folder / "ca.key").exists()
    renew = f"Issue a new one: tinyfl keys {folder}; then start the SuperLink again. Gateways keep their files."
    for path, cure in ((folder / "ca.crt", NEW_CA), (folder / "superlink.crt", renew if here else NEW_CERTIFICATE)):
        try:
            found = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is no certificate ({error}). Put the one made by tinyfl keys there.") from error
        begin, until = found.not_valid_before_utc, found.not_valid_after_utc
        if until < _now():
            raise ConfigError(f"{path} expired on {until:%Y-%m-%d}. {cure}")
        if begin > _now():
            raise ConfigError(
                f"{path} is not valid before {begin:%Y-%m-%d %H:%M} UTC, and the clock of this machine says "
                f"{_now():%Y-%m-%d %H:%M}. Set the clock right, here or where tinyfl keys ran."
            )
        warnings += _expiry_warning(str(path), until, cure)
    return warnings


def _demand_clock(address: str, host: str, port: int) -> None:
    """Raises ClockError if this machine's clock explains why a certificate is not valid. What the SuperLink says of its own is
    not verified, and decides about nothing but the message."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        suppress(OSError),
        socket.create_connection((host, port), CHECK_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        _refuse(address, _ahead(tls, host))


def _refuse(address: str, ahead: float) -> None:
    if not -BEHIND < ahead < AHEAD:
        raise ClockError(
            f"this machine's clock is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the SuperLink at "
            f"{address}; Flower allows {AHEAD} s ahead and {BEHIND} s behind. {clock.CURE}"
        )


def _ahead(tls: ssl.SSLSocket, host: str) -> float:
    """The seconds by which this machine's clock is ahead, by the Date of a response, to a second; 0 without one."""
    head = b""
    with suppress(OSError, ValueError, TypeError, OverflowError):  # the last three for what is no date
        tls.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES and (more := tls.recv(MAX_HEAD_BYTES)):
            head += more
        lines = [line.partition(b":") for line in head.split(b"\r\n")]
        (date,) = [value.decode() for name, _, value in lines if name.lower() == b"date"]
        return (_now() - parsedate_to_datetime(date)).total_seconds() - 1.0  # whole seconds, kept for one
    return 0.0


def _fault(address: str, host: str, port: int, root: Path, error: ssl.SSLCertVerificationError) -> str:
    """The fault of the SuperLink's certificate, and its cure."""
    if error.verify_code == EXPIRED:
        return f"the certificate of the SuperLink at {address} {_expired_on(host, port)}. {NEW_CERTIFICATE}"
    if error.verify_code == NOT_YET:
        return (
            f"the certificate of the SuperLink at {address} is not valid yet; the clock of this machine says "
            f"{_now():%Y-%m-%d %H:%M} UTC. Set the clock right, here or where tinyfl keys ran."
        )
    if error.verify_code in OTHER_NAME:
        return (
            f"the certificate of the SuperLink at {address} is for other addresses, not for {host}. Where the keys are: tinyfl "
            f"keys FOLDER --host {host}; copy the new superlink.crt to the SuperLink's machine, and restart the SuperLink. Or "
            "give --superlink an address that the certificate lists."
        )
    return (
        f"the SuperLink at {address} shows a certificate that {root} does not vouch for ({error.verify_message}). "
        "Give the ca.crt of this federation."
    )


def _expired_on(host: str, port: int) -> str:
    """The expiry date of an expired certificate. It is fetched once more, since a rejected one is not kept."""
    with suppress(OSError, ValueError):
        from cryptography import x509

        pem = ssl.get_server_certificate((host, port), timeout=CHECK_SECONDS)
        return f"expired on {x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc:%Y-%m-%d}"
    return "has expired"


def _expiry_warning(whose: str, until: datetime, cure: str) -> tuple[str, ...]:
    remaining = until - _now()
    return (f"{whose} expires on {until:%Y-%m-%d}, in {remaining.days} days. {cure}",) if remaining < SOON else ()


def _datetime(text: object) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(text)), UTC)


def _now() -> datetime:
    return datetime.now(UTC)
