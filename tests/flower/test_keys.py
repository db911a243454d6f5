"""The keys of a Flower deployment: what others make of them, and that nothing is ever lost, shown or half-written."""

import json
import os
import re
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
import threading
import tomllib
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tinyfl.cli import app
from tinyfl.deployment import keys
from tinyfl.deployment.keys import make_keys
from tinyfl.errors import ConfigError, RunError, TinyflError
from tinyfl.system.addresses import LOOPBACK

HOSTS, NODES = ("lab.example", "192.168.1.10"), ("lab-a", "lab-b")
FILES = {
    "ca.key", "ca.crt", "superlink.key", "superlink.crt", "lab-a.key", "lab-a.pub", "lab-b.key", "lab-b.pub",
}  # fmt: skip

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl")
ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen: apt-get install openssh-client")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", HOSTS, NODES)
    return tmp_path / "keys"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def said(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shake(folder: Path, name: str, ca: Path) -> None:
    """A TLS handshake over loopback: a client that trusts ``ca`` and asks for ``name``. Raises what the client raises."""
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here.load_cert_chain(folder / "superlink.crt", folder / "superlink.key")
    there = ssl.create_default_context(cafile=str(ca))
    there.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            try:
                here.wrap_socket(peer, server_side=True).close()
            except OSError:
                peer.close()

        server = threading.Thread(target=serve)
        server.start()
        try:
            with socket.create_connection(listener.getsockname()) as plain, there.wrap_socket(plain, server_hostname=name):
                pass
        finally:
            server.join()


def test_a_folder_holds_exactly_what_a_deployment_needs(tmp_path: Path) -> None:
    made = make_keys(tmp_path / "deep" / "keys", HOSTS, NODES)
    assert set(made.made) == set(contents(made.folder)) == FILES
    assert made.kept == ()
    assert (made.host, made.hosts, made.nodes) == ("lab.example", (*HOSTS, *LOOPBACK), NODES)


def test_without_hosts_the_superlink_is_local(tmp_path: Path) -> None:
    made = make_keys(tmp_path, [], [])
    assert (made.host, made.hosts) == ("localhost", LOOPBACK)
    assert set(contents(tmp_path)) == {"ca.key", "ca.crt", "superlink.key", "superlink.crt"}


@openssl
def test_openssl_accepts_the_chain_strictly_and_reads_what_was_asked_for(folder: Path) -> None:
    verify = ("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", folder / "ca.crt")
    for option, value in (("-verify_hostname", "lab.example"), ("-verify_ip", "192.168.1.10"), ("-verify_ip", "::1")):
        assert said(*verify, option, value, folder / "superlink.crt").endswith("OK\n")
    server, ca = (said("openssl", "x509", "-noout", "-text", "-in", folder / name) for name in ("superlink.crt", "ca.crt"))
    assert "Version: 3" in server
    assert "Version: 3" in ca
    assert re.search(r"Basic Constraints: critical\s+CA:FALSE\n", server)
    assert re.search(r"Basic Constraints: critical\s+CA:TRUE, pathlen:0\n", ca)
    assert re.search(r"X509v3 Key Usage: critical\s+Digital Signature\n", server)
    assert re.search(r"X509v3 Key Usage: critical\s+Certificate Sign, CRL Sign\n", ca)
    assert re.search(r"Extended Key Usage: \s+TLS Web Server Authentication\n", server)
    assert "DNS:lab.example, IP Address:192.168.1.10, DNS:localhost, IP Address:127.0.0.1" in server
    subject = re.search(r"Subject Key Identifier: \s+(\S+)", ca)
    authority = re.search(r"Authority Key Identifier: \s+(?:keyid:)?(\S+)", server)
    assert subject
    assert authority
    assert subject[1] == authority[1]


@openssl
def test_openssl_finds_each_private_key_sound_and_of_its_certificate(folder: Path) -> None:
    for name in ("ca", "superlink"):
        assert "valid" in said("openssl", "pkey", "-check", "-noout", "-in", folder / f"{name}.key")
        of_key = said("openssl", "pkey", "-pubout", "-in", folder / f"{name}.key")
        assert of_key == said("openssl", "x509", "-noout", "-pubkey", "-in", folder / f"{name}.crt")


@ssh_keygen
def test_ssh_keygen_reads_a_nodes_keys_as_its_own(folder: Path) -> None:
    said("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", folder / "own")
    assert re.fullmatch(r"384 SHA256:\S+ lab-a \(ECDSA\)\n", said("ssh-keygen", "-l", "-f", folder / "lab-a.pub"))
    derived = said("ssh-keygen", "-y", "-P", "", "-f", folder / "lab-a.key").split()
    assert derived[:2] == (folder / "lab-a.pub").read_text().split()[:2]
    kinds = [(folder / name).read_text().split(" ")[0] for name in ("own.pub", "lab-a.pub")]
    begins = [(folder / name).read_text().splitlines()[0] for name in ("own", "lab-a.key")]
    assert kinds[0] == kinds[1]
    assert begins[0] == begins[1]


@ssh_keygen
def test_a_key_that_ssh_keygen_made_is_kept(folder: Path) -> None:
    said("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", folder / "own.key")
    (folder / "own.key.pub").rename(folder / "own.pub")
    assert "own.key" in make_keys(folder, [], ["own"]).kept
    (folder / "own.pub").unlink()
    assert make_keys(folder, [], ["own"]).made == ("own.pub",)


def test_flower_loads_a_nodes_key_and_registers_its_public_half(folder: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    for node in NODES:
        pair = _try_setup_client_authentication(
            Namespace(auth_supernode_private_key=str(folder / f"{node}.key"), auth_supernode_public_key=None)
        )
        assert pair
        assert public_key_to_bytes(pair[1]) == try_load_public_key(folder / f"{node}.pub")
    assert (folder / "lab-a.pub").read_bytes() != (folder / "lab-b.pub").read_bytes()


@pytest.mark.parametrize("name", [*HOSTS, *LOOPBACK])
def test_a_client_that_trusts_the_ca_connects_by_every_name(folder: Path, name: str) -> None:
    shake(folder, name, folder / "ca.crt")


@pytest.mark.parametrize("name", ["other.example", "sub.lab.example", "192.168.1.11"])
def test_a_client_refuses_another_name(folder: Path, name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(folder, name, folder / "ca.crt")


def test_a_client_refuses_another_ca_of_the_same_name(folder: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "other", HOSTS, [])
    with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED"):
        shake(folder, "lab.example", tmp_path / "other" / "ca.crt")


def test_keys_are_their_owners_only_from_before_the_first_byte_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[int] = []
    opened = os.open

    def spy(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(path, flags, mode)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL
            created.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    old = os.umask(0)
    try:
        make_keys(tmp_path / "keys", HOSTS, NODES)
    finally:
        os.umask(old)
    assert created == [0o600, 0o644] * 4
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.suffix == ".key" else 0o644)
        assert path.stat().st_nlink == 1


def test_a_second_run_keeps_every_byte_and_says_so(folder: Path) -> None:
    before = contents(folder)
    made = make_keys(folder, HOSTS[1:], NODES)
    assert (made.made, set(made.kept)) == ((), FILES)
    assert contents(folder) == before
    assert made.host == HOSTS[1]
    assert made.hosts == (*HOSTS, *LOOPBACK)


def test_a_new_node_is_added_and_nothing_else_changes(folder: Path) -> None:
    before = contents(folder)
    assert make_keys(folder, [], ["lab-b", "lab-c"]).made == ("lab-c.key", "lab-c.pub")
    after = contents(folder)
    assert after.keys() - before.keys() == {"lab-c.key", "lab-c.pub"}
    assert {name: after[name] for name in before} == before


def test_a_new_host_gets_a_certificate_that_has_the_old_names_too(folder: Path) -> None:
    before = contents(folder)
    made = make_keys(folder, ["new.example"], [])
    assert made.made == ("superlink.crt",)
    assert made.host == "new.example"
    after = contents(folder)
    assert {name for name in FILES if before[name] != after[name]} == {"superlink.crt"}
    for name in (*HOSTS, *LOOPBACK, "new.example"):
        shake(folder, name, folder / "ca.crt")


def test_keys_that_went_where_they_belong_are_not_made_again(folder: Path, tmp_path: Path) -> None:
    for name in ("superlink.key", "lab-a.key"):
        (folder / name).rename(tmp_path / name)
    made = make_keys(folder, ["new.example"], NODES)
    assert made.made == ("superlink.crt",)
    (tmp_path / "superlink.key").rename(folder / "superlink.key")
    shake(folder, "new.example", folder / "ca.crt")


def test_a_certificate_lasts_a_year_from_an_hour_ago_and_a_ca_ten(folder: Path) -> None:
    now = datetime.now(UTC)
    for name, days in (("superlink.crt", 365), ("ca.crt", 3650)):
        made = certificate(folder / name)
        assert made.not_valid_before_utc <= now - timedelta(hours=1)
        assert made.not_valid_after_utc - made.not_valid_before_utc == timedelta(days=days, hours=1)


@pytest.mark.parametrize(("later", "anew"), [(334, False), (336, True), (365, True), (400, True)])
def test_a_certificate_that_ends_soon_is_issued_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, later: int, anew: bool
) -> None:
    key = (folder / "superlink.key").read_bytes()
    now = keys._now() + timedelta(days=later)
    monkeypatch.setattr(keys, "_now", lambda: now)
    made = make_keys(folder, [], [])
    assert made.made == (("superlink.crt",) if anew else ())
    assert (made.until == now + timedelta(days=365)) is anew
    assert (folder / "superlink.key").read_bytes() == key


def test_no_certificate_outlives_its_ca(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = certificate(folder / "ca.crt").not_valid_after_utc
    monkeypatch.setattr(keys, "_now", lambda: end - timedelta(days=10))
    assert make_keys(folder, [], []).until == end
    assert make_keys(folder, [], []).made == ()
    monkeypatch.setattr(keys, "_now", lambda: end)
    refused(folder, "valid from")


def test_a_ca_from_elsewhere_is_used_with_its_own_identifier(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the lab's own")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(1), now + timedelta(100))
    for extension in (x509.BasicConstraints(True, None), x509.SubjectKeyIdentifier(b"chosen")):
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    (tmp_path / "ca.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (tmp_path / "ca.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert "ca.crt" in make_keys(tmp_path, HOSTS, []).kept
    issued = certificate(tmp_path / "superlink.crt").extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert issued.value.key_identifier == b"chosen"


class Cut(BaseException):
    """The process is gone: what follows does not run."""


@pytest.mark.parametrize("call", ["open", "fsync", "link", "unlink", "replace"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_cut_at_any_moment_leaves_whole_files_and_the_next_run_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: bool
) -> None:
    real = getattr(os, call)
    for moment in range(100):
        folder, left = tmp_path / str(moment), [moment]

        def cut(*words: object, left: list[int] = left, **named: object) -> object:
            left[0] -= 1
            if left[0] == -1 and not after:
                raise Cut
            result = real(*words, **named)
            if left[0] == -1:
                raise Cut
            return result

        monkeypatch.setattr(os, call, cut)
        with suppress(Cut):
            make_keys(folder, HOSTS, NODES)
        monkeypatch.setattr(os, call, real)
        there = {name: data for name, data in contents(folder).items() if name in FILES}
        again = make_keys(folder, HOSTS, NODES)
        assert set(again.kept) == set(there)
        assert set(contents(folder)) == FILES
        assert {name: contents(folder)[name] for name in there} == there
        shake(folder, "lab.example", folder / "ca.crt")
        if left[0] >= 0:  # nobody called so often
            break
    assert 0 < moment < 99


def test_a_cut_of_a_renewal_leaves_the_old_certificate_or_the_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def cut(*_: object) -> None:
        raise Cut

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(Cut):
        make_keys(folder, ["new.example"], [])
    monkeypatch.undo()
    assert {name: contents(folder)[name] for name in FILES} == before
    assert make_keys(folder, ["new.example"], []).made == ("superlink.crt",)
    assert set(contents(folder)) == FILES


def test_runs_side_by_side_agree(tmp_path: Path) -> None:
    names = [f"lab-{i}" for i in range(4)]
    runs = [threading.Thread(target=make_keys, args=(tmp_path / "keys", [f"{name}.example"], [name])) for name in names]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    made = make_keys(tmp_path / "keys", [], names)
    assert made.made == ()
    assert set(made.hosts) == {*LOOPBACK, *(f"{name}.example" for name in names)}
    shake(tmp_path / "keys", "lab-0.example", tmp_path / "keys" / "ca.crt")


def refused(folder: Path, match: str, kind: type[TinyflError] = RunError) -> None:
    """Whatever is asked of the folder is refused, and no file of it changes."""
    before = contents(folder)
    with pytest.raises(kind, match=match):
        make_keys(folder, ["new.example"], [*NODES, "lab-c"])
    assert contents(folder) == before


def of_another(name: str, tmp_path: Path) -> bytes:
    make_keys(tmp_path / "other", HOSTS, NODES)
    return (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "superlink.crt", "superlink.key", "lab-b.key", "lab-b.pub"])
def test_a_file_that_cannot_be_read_is_refused(folder: Path, name: str) -> None:
    for damage in (b"", b"not a key", (folder / name).read_bytes()[:-60]):
        (folder / name).write_bytes(damage)
        refused(folder, re.escape(name))
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(RunError, match=re.escape(name)):
        make_keys(folder, [], NODES)


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "superlink.crt", "superlink.key", "lab-b.key", "lab-b.pub"])
def test_a_file_of_another_deployment_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(of_another(name, tmp_path))
    refused(folder, "does not belong to")


def test_a_ca_of_another_deployment_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("ca.crt", "ca.key"):
        (folder / name).write_bytes(of_another(name, tmp_path))
    refused(folder, "is not signed by the CA beside it")


def test_a_ca_certificate_without_its_key_is_refused(folder: Path) -> None:
    (folder / "ca.key").unlink()
    refused(folder, "has no ca.key beside it. Put ca.key there, or use another folder")


def test_a_lost_ca_certificate_is_made_again_from_its_key(folder: Path) -> None:
    (folder / "ca.crt").unlink()
    assert make_keys(folder, [], []).made == ("ca.crt",)
    shake(folder, "lab.example", folder / "ca.crt")


def test_keys_that_flower_would_not_take_are_refused(folder: Path) -> None:
    form = Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    for key in (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)):
        (folder / "lab-b.key").write_bytes(key.private_bytes(*form))
        refused(folder, "lab-b.key is no EC key")


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "keys"):
        with pytest.raises(RunError, match="cannot be used"):
            make_keys(path, [], [])


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "lab-a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="cannot be used"):
        make_keys(tmp_path / "keys", [], ["lab-a"])
    assert not (tmp_path / "elsewhere").exists()


BAD = st.text(min_size=1).filter(lambda text: not text.isascii() or re.search(r"[^A-Za-z0-9._:-]", text) is not None)


@given(BAD | st.sampled_from(["", "ca", "CA", "superlink", ".", "..", "-a", ".a", "a/b", "../a", "a\n", "a" * 65]))
def test_a_bad_node_is_refused_before_anything_is_written(name: str) -> None:
    with pytest.raises(ConfigError, match="--node"):
        make_keys(Path("/nowhere/at/all"), HOSTS, ["lab-a", name])


@given(
    BAD
    | st.ip_addresses(v=4).map(lambda ip: f"{ip}:8000")
    | st.sampled_from([
        "", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "a_b", "*.a", "a" * 64, "a." * 127 + "a.b", "256.1.1.1", "1.2.3",
        "0.0.0.0", "::", "[::1]", "fe80::1%eth0", "lab:8000", "https://lab", "10.0.0.0/8", "lab\n", "\u212aa.b",
    ])
)  # fmt: skip
def test_a_bad_host_is_refused_before_anything_is_written(name: str) -> None:
    with pytest.raises(ConfigError, match="--host"):
        make_keys(Path("/nowhere/at/all"), ["lab.example", name], NODES)


@given(st.ip_addresses().filter(lambda ip: not ip.is_unspecified))
def test_every_address_is_a_host_once(ip: object) -> None:
    assert keys.host_name(str(ip).upper()) == str(ip)
    assert keys.host_name("Lab-1.EXAMPLE") == "lab-1.example"


def test_days_out_of_range_are_refused(tmp_path: Path) -> None:
    for days in (-1, 0, 3651, 10**12):
        with pytest.raises(ConfigError, match="days"):
            make_keys(tmp_path / "keys", [], [], days)
    assert not (tmp_path / "keys").exists()


Verb = Callable[..., str]


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verb:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["keys", *words], catch_exceptions=False)
        assert done.exit_code == 0
        assert done.stderr == ""
        return done.stdout

    return run


ASKED = [word for host in HOSTS for word in ("--host", host)] + [word for node in NODES for word in ("--node", node)]


def test_json_is_one_object_with_the_files_and_what_comes_next(verb: Verb, tmp_path: Path) -> None:
    out = verb("my keys", *ASKED, "--json")
    assert out.count("\n") == 1
    said = json.loads(out)
    assert set(said["made"]) == FILES
    assert said["kept"] == []
    assert said["nodes"] == list(NODES)
    assert said["hosts"] == [*HOSTS, *LOOPBACK]
    assert (
        datetime.fromisoformat(said["valid_until"]) == certificate(tmp_path / "my keys" / "superlink.crt").not_valid_after_utc
    )
    assert shlex.split(said["register"][1]) == ["flwr", "supernode", "register", "my keys/lab-b.pub", "lab"]
    assert said["gateways"]["lab-b"] == (
        "tinyfl gateway --superlink lab.example:8000 --fleet fleet.toml --root-certificates ca.crt --key lab-b.key "
        "--first-device N"
    )
    assert json.loads(verb("my keys", *ASKED, "--json"))["made"] == []


def test_the_commands_are_ones_that_tinyfl_and_flower_take(verb: Verb, tmp_path: Path) -> None:
    from flwr.cli.flower_config import parse_superlink_connection

    from tinyfl.deployment.superlink import Setting

    said = json.loads(verb("my keys", *ASKED, "--json"))
    program, name, *words = shlex.split(said["superlink"])
    group: Any = typer.main.get_command(app)
    with group.commands[name].make_context(name, words) as context:
        given = context.params
    assert (program, given["host"], given["port"], given["local_port"]) == ("tinyfl", "", 8000, 8001)
    Setting("", 8000, 8001, Path("superlink.db"), Path(given["keys"])).check()
    connection = parse_superlink_connection(tomllib.loads(said["config"])["superlink"]["lab"], "lab")
    assert (connection.address, connection.insecure) == ("127.0.0.1:8001", False)
    assert Path(str(connection.root_certificates)).samefile(tmp_path / "my keys" / "ca.crt")


@pytest.mark.parametrize(
    ("host", "listen", "address"),
    [
        ("fd00::5", [], "[fd00::5]:8000"),
        ("localhost", ["--host", "127.0.0.1"], "localhost:8000"),
        ("10.0.0.1", [], "10.0.0.1:8000"),
    ],
)
def test_the_superlink_listens_where_the_gateways_go(verb: Verb, host: str, listen: list[str], address: str) -> None:
    said = json.loads(verb("keys", "--host", host, "--node", "lab-a", "--json"))
    assert shlex.split(said["superlink"]) == ["tinyfl", "superlink", "--keys", "keys", *listen]
    assert address in shlex.split(said["gateways"]["lab-a"])


def test_a_person_reads_the_files_where_they_go_and_the_same_commands(verb: Verb) -> None:
    first = verb("keys", *ASKED)
    told = json.loads(verb("keys", *ASKED, "--json"))
    for line in (told["superlink"], *told["register"], *told["gateways"].values(), *told["config"].splitlines()):
        assert f"  {line}\n" in first
    assert all(name in first.partition("\n")[0] for name in FILES)
    assert "ca.key signs the next superlink.crt" in first
    assert "N is the number of that gateway's first device" in first
    assert "kept" not in first and "Restart" not in first
    again = verb("keys", *ASKED)
    assert "kept as they were: ca.key" in again and "Restart" not in again
    assert "No node has a key yet: tinyfl keys other --node lab-a" in verb("other")


def test_a_new_host_says_to_restart_the_superlink_and_forgets_no_node(verb: Verb) -> None:
    verb("keys", *ASKED)
    told = verb("keys", "--host", "10.77.0.1")
    assert "kept as they were: ca.key ca.crt superlink.key lab-a.key lab-a.pub lab-b.key lab-b.pub\n" in told
    assert "Restart the SuperLink: until then it shows its old superlink.crt." in told
    assert "--key lab-b.key" in told and "No node" not in told
