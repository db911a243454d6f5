"""What a SuperLink's certificate is worth, found out before anything else is asked of it."""

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tinyfl.deployment.keys import SOON
from tinyfl.errors import ConfigError

CHECK_SECONDS = 5.0
"""What a SuperLink may take to show its certificate."""

EXPIRED, NOT_YET = 10, 9
"""OpenSSL's codes, X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""

NEW_CERTIFICATE = (
    "Where the keys are, tinyfl keys FOLDER issues superlink.crt anew; put it where the SuperLink runs, and start the "
    "SuperLink again. Gateways keep what they have."
)
NEW_CA = (
    "Make another CA (tinyfl keys NEW-FOLDER, with the --host of before), start the SuperLink with its certificates, and give "
    "each gateway its ca.crt. The nodes' own keys stay as they are."
)


def check(address: str, host: str, port: int, root: Path) -> tuple[str, ...]:
    """Words on certificates that expire within keys.SOON: the CA's, in the file ``root``, and the SuperLink's, which it shows
    at ``host`` and ``port``. A SuperLink that does not answer is no error: it may come later.

    Raises ConfigError for a certificate that has expired, or that ``root`` does not vouch for.
    """
    try:
        context = ssl.create_default_context(cafile=str(root))
        until = min(_moment(authority["notAfter"]) for authority in context.get_ca_certs())
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(f"{root} is no certificate ({error}). Give the ca.crt that tinyfl keys wrote.") from error
    if until < _now():
        raise ConfigError(f"{root} expired on {until:%Y-%m-%d}. {NEW_CA}")
    soon = _soon(str(root), until, NEW_CA)
    try:
        with (
            socket.create_connection((host, port), CHECK_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as shown,
        ):
            its = _moment((shown.getpeercert() or {})["notAfter"])
            return soon + _soon(f"the certificate of the SuperLink at {address}", its, NEW_CERTIFICATE)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(_why(address, host, port, root, error)) from error
    except ssl.SSLError as error:
        raise ConfigError(
            f"the SuperLink at {address} does not speak TLS ({error}). Start it with its certificates."
        ) from error
    except OSError:
        return soon


def _why(address: str, host: str, port: int, root: Path, error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with the certificate that the SuperLink shows, and what helps."""
    if error.verify_code == EXPIRED:
        return f"the certificate of the SuperLink at {address} {_dated(host, port)}. {NEW_CERTIFICATE}"
    if error.verify_code == NOT_YET:
        return (
            f"the certificate of the SuperLink at {address} is not valid yet, and it is {_now():%Y-%m-%d %H:%M} UTC by the "
            "clock of this machine. Set the clock right, here or where tinyfl keys ran."
        )
    return (
        f"the SuperLink at {address} shows a certificate that {root} does not vouch for ({error.verify_message}). "
        "Give the ca.crt of this federation, and an address that its certificate names (tinyfl keys --host)."
    )


def _dated(host: str, port: int) -> str:
    """When an expired certificate did so. It is asked for once more, since a refused one is not kept."""
    with suppress(OSError, ValueError):
        from cryptography import x509

        shown = ssl.get_server_certificate((host, port), timeout=CHECK_SECONDS)
        return f"expired on {x509.load_pem_x509_certificate(shown.encode()).not_valid_after_utc:%Y-%m-%d}"
    return "has expired"


def _soon(whose: str, until: datetime, cure: str) -> tuple[str, ...]:
    left = until - _now()
    return (f"{whose} expires on {until:%Y-%m-%d}, in {left.days} days. {cure}",) if left < SOON else ()


def _moment(text: object) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(text)), UTC)


def _now() -> datetime:
    return datetime.now(UTC)
