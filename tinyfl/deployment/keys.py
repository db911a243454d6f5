"""The certificates and keys of a Flower deployment: a CA, the SuperLink's TLS certificate, and a key for each node.

    ca.key         signs superlink.crt, and has no other use
    ca.crt         trusted by the gateways and the flwr command
    superlink.key  with superlink.crt, the SuperLink's identity
    NAME.key       a node's identity, in OpenSSH's format for flower-supernode
    NAME.pub       registers the node at the SuperLink: flwr supernode register

All files are planned before any is written, and a private key is written before the files derived from it. A file is written
under a temporary name and then linked, so an interruption leaves it complete or absent, and the next run continues. Only
superlink.crt is ever replaced.
"""

import fcntl
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as Public
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509 import Certificate
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tinyfl.errors import ConfigError, RunError
from tinyfl.system.addresses import LOOPBACK
from tinyfl.system.files import sync

CA_DAYS = 3650
SOON = timedelta(days=30)
"""A superlink.crt with less validity left is replaced."""
SKEW = timedelta(hours=1)
"""Maximum lag of another machine's clock."""
OURS = ("ca", "superlink")
NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
TEMPORARY = ".tinyfl-keys.new"

Key = ec.EllipticCurvePrivateKey
Files = dict[str, bytes]
T = TypeVar("T")


@dataclass(frozen=True)
class MadeKeys:
    """The contents of ``folder``. ``made`` and ``kept`` are files, and ``nodes`` those asked for, or else all that have a key
    there; ``host`` is the SuperLink's address for gateways; ``hosts`` are all names in superlink.crt, which is valid until
    ``until``, and is ``renewed`` if it replaced one."""

    folder: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]
    nodes: tuple[str, ...]
    host: str
    hosts: tuple[str, ...]
    until: datetime
    renewed: bool


def make_keys(folder: Path, hosts: Sequence[str], nodes: Sequence[str], days: int = 365) -> MadeKeys:
    """Makes the missing files in ``folder`` for a SuperLink with the addresses ``hosts``, and for ``nodes``; keeps existing
    files.

    Raises ConfigError for an invalid name, and RunError for an unusable folder; both leave existing files unchanged. After a
    disk error, the next run continues.
    """
    if not 1 <= days <= CA_DAYS:
        raise ConfigError(f"superlink.crt cannot be valid for {days:,} days: give 1 to {CA_DAYS:,}.")
    hosts, nodes = tuple(map(host_name, hosts)), tuple(dict.fromkeys(map(node_name, nodes)))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            existing, new = {path.name for path in folder.iterdir()}, Files()
            signer, ca = _authority(folder, new)
            certificate = _superlink(folder, new, signer, ca, hosts, days)
            for node in nodes:
                _node(folder, new, node)
            (folder / TEMPORARY).unlink(missing_ok=True)  # from an interrupted run
            for name, data in new.items():
                _write(folder / name, data)
                sync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RunError(f"{folder} cannot be used ({error}). Give a folder on a local disk that you may write to.") from error
    files = [f"{name}.{end}" for name in OURS for end in ("key", "crt")]
    there = sorted(Path(name).stem for name in existing if name.endswith(".pub") and NODE.fullmatch(name))
    files += [f"{name}.{end}" for name in dict.fromkeys((*nodes, *there)) for end in ("key", "pub")]
    kept = tuple(name for name in files if name in existing and name not in new)
    renewed = "superlink.crt" in existing and "superlink.crt" in new
    all_names = tuple(_names(certificate))
    host = (*hosts, *(name for name in all_names if name not in LOOPBACK), LOOPBACK[0])[0]
    return MadeKeys(folder, tuple(new), kept, nodes or tuple(there), host, all_names, certificate.not_valid_after_utc, renewed)


def host_name(text: str) -> str:
    """``text`` in a certificate's notation. Raises ConfigError if it is neither a DNS name nor a machine's IP address."""
    try:
        address = ip_address(text)
        if not address.is_unspecified and "%" not in text:
            return str(address)
    except ValueError:
        labels = text.lower().split(".")
        if text.isascii() and len(text) <= 253 and all(map(LABEL.fullmatch, labels)) and not labels[-1].isdigit():
            return text.lower()
    raise ConfigError(f"--host {text!r}: give a DNS name or an IP address that gateways can connect to, without a port.")


def node_name(text: str) -> str:
    """``text``, if it is valid in file names. Raises ConfigError if not."""
    if not NODE.fullmatch(text) or text.lower() in OURS:
        raise ConfigError(
            f"--node {text!r}: give 1 to 64 letters, digits, '.', '-' or '_', a letter or digit first; "
            f"{' and '.join(OURS)} are taken."
        )
    return text


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _write(path: Path, data: bytes) -> None:
    """Writes a file atomically, replacing only superlink.crt; a .key is readable by its owner only."""
    new = path.with_name(TEMPORARY)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if path.suffix == ".key" else 0o644), "wb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())
    if path.name == "superlink.crt":
        new.replace(path)
        return
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:  # no links on this file system, such as an SMB share or a USB stick; the folder is locked
        if path.exists():
            raise
        new.rename(path)
    else:
        new.unlink()


def _read(path: Path, parse: Callable[[bytes], T]) -> T | None:
    """Parses the file at ``path``; None if it does not exist. Raises RunError if it is unusable."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RunError(f"{path} cannot be used ({error}). Restore the right file, or use another folder.") from error


def _read_key(path: Path, load: Callable[[bytes, None], object] = serialization.load_pem_private_key) -> Key | None:
    key = _read(path, lambda data: load(data, None))
    if key is not None and not isinstance(key, Key):
        raise RunError(f"{path} is no EC key. Restore the right file, or use another folder.")
    return key


def demand_node_key(path: Path) -> None:
    """Raises ConfigError if the file at ``path`` is no private key that a node can have."""
    try:
        key: object = serialization.load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Key):
        raise ConfigError(f"{path} is no gateway's private key. Give --key the NAME.key that tinyfl keys --node NAME made.")


def _certificate(data: bytes) -> Certificate:
    certificate = x509.load_pem_x509_certificate(data)
    certificate.public_key()
    _names(certificate)  # both raise ValueError for a damaged certificate
    return certificate


def _demand_pair(path: Path, public: object, key: Key | None) -> None:
    """Raises RunError if the public key in ``path`` does not belong to ``key``."""
    if key and public != key.public_key():
        raise RunError(f"{path} does not belong to the {path.stem}.key beside it. Restore the right one, or move both away.")


def _fresh(new: Files, name: str, form: PrivateFormat = PrivateFormat.PKCS8) -> Key:
    key = ec.generate_private_key(ec.SECP384R1())
    new[name] = key.private_bytes(Encoding.PEM, form, NoEncryption())
    return key


def _authority(folder: Path, new: Files) -> tuple[Key, Certificate]:
    path = folder / "ca.crt"
    ca, key = _read(path, _certificate), _read_key(folder / "ca.key")
    if ca and not key:
        raise RunError(f"{path} has no ca.key beside it. Put ca.key there, or use another folder.")
    key = key or _fresh(new, "ca.key")
    if not ca:
        ca = _issue("tinyfl CA", key.public_key(), CA_DAYS, key)
        new[path.name] = ca.public_bytes(Encoding.PEM)
    _demand_pair(path, ca.public_key(), key)
    begin, end = ca.not_valid_before_utc, ca.not_valid_after_utc
    if not begin <= _now() < end:
        raise RunError(
            f"{path} is valid from {begin:%F} to {end:%F}, not on {_now():%F}. Set the clock, or use another folder."
        )
    return key, ca


def _superlink(folder: Path, new: Files, signer: Key, ca: Certificate, hosts: Sequence[str], days: int) -> Certificate:
    """The SuperLink's certificate, new or kept. An existing one's key may already be on the SuperLink's machine."""
    path = folder / "superlink.crt"
    old, key = _read(path, _certificate), _read_key(folder / "superlink.key")
    public = old.public_key() if old else (key or _fresh(new, "superlink.key")).public_key()
    _demand_pair(path, public, key)
    try:
        if old:
            old.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise RunError(f"{path} is not signed by the CA beside it. Restore the right CA, or move {path} away.") from error
    old_names = _names(old) if old else []
    names = list(dict.fromkeys((*old_names, *hosts, *LOOPBACK)))
    if old and names == old_names and old.not_valid_after_utc >= min(_now() + SOON, ca.not_valid_after_utc):
        return old
    issued = _issue("tinyfl SuperLink", public, days, signer, ca, names)
    new[path.name] = issued.public_bytes(Encoding.PEM)
    return issued


def _node(folder: Path, new: Files, name: str) -> None:
    """Makes a node's keys. A node with a .pub is kept: its key may already be on the gateway's machine."""
    path = folder / f"{name}.pub"
    key = _read_key(folder / f"{name}.key", serialization.load_ssh_private_key)
    public = _read(path, serialization.load_ssh_public_key)
    if public:
        _demand_pair(path, public, key)
    else:
        public = (key or _fresh(new, f"{name}.key", PrivateFormat.OpenSSH)).public_key()
        new[path.name] = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + f" {name}\n".encode()


def _issue(
    subject: str, public: Public, days: int, signer: Key, ca: Certificate | None = None, names: Sequence[str] = ()
) -> Certificate:
    """A server's certificate issued by ``ca``, valid no longer than the CA; without ``ca``, a self-signed CA certificate."""
    now, root, identifier = _now(), ca is None, x509.SubjectKeyIdentifier.from_public_key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    until = now + timedelta(days=days)
    by = identifier(signer.public_key())
    if ca:
        until = min(until, ca.not_valid_after_utc)
        by = next((each.value for each in ca.extensions if isinstance(each.value, x509.SubjectKeyIdentifier)), by)
    builder = x509.CertificateBuilder(ca.subject if ca else name, name, public, x509.random_serial_number(), now - SKEW, until)
    # a server: digital signatures; a CA: certificates and revocations
    usage = x509.KeyUsage(not root, False, False, False, False, root, root, False, False)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(root, 0 if root else None), critical=True)
    builder = builder.add_extension(identifier(public), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(by), critical=False)
    if names:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(map(_alternative, names)), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: Certificate) -> list[str]:
    """The DNS names and IP addresses in the certificate."""
    found = (each.value for each in certificate.extensions if isinstance(each.value, x509.SubjectAlternativeName))
    return [str(each.value) for names in found for each in names if isinstance(each, x509.DNSName | x509.IPAddress)]
