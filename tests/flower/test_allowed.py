"""The allow list: which apps and paths a machine lets runs have, against Flower's own reading of the same bundles."""

import hashlib
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from apps import OURS, bundle, changed, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyfl.deployment.submit import APP
from tinyfl.errors import ConfigError
from tinyfl.flower.allowed import Allowed, read_allowed, refuse_paths, why_refused

NONE = Allowed(frozenset(), ())
PYPROJECT = tomli_w.dumps(OURS).encode()
LISTED = f"pyproject.toml,{hashlib.sha256(PYPROJECT).hexdigest()},{8 * len(PYPROJECT)}"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_example_app_is_known_as_flower_bundles_it_whatever_its_settings(tmp_path: Path) -> None:
    from flwr.cli.build import build_fab_from_disk

    folder = tmp_path / "my-fleet"
    folder.mkdir()
    text = Path(str(APP)).read_text()
    for settings_ in (text, text.replace("rounds = 10", "rounds = 3"), text.replace('"tinyfl-fleet"', '"our-fleet"')):
        (folder / "pyproject.toml").write_text(settings_)
        assert why_refused(build_fab_from_disk(folder), NONE) == ""


@pytest.mark.parametrize("file", ["evil.py", "tinyfl/__init__.py", "README.md", "sitecustomize.py", ".info/more", "a/"])
def test_an_app_with_a_file_of_its_own_is_refused_by_that_files_name(file: str) -> None:
    assert f"has files of its own ({file})" in why_refused(bundle(files={file: "x"}), NONE)


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        ("tool.flwr.app.components.serverapp", "evil:app", "components"),
        ("tool.flwr.app.components.clientapp", "tinyfl.flower.server_app:app", "components"),
        ("tool.flwr.app.components.agentapp", "evil:app", "components"),
        ("tool.flwr.app.components", ["tinyfl"], "components"),
        ("project.dependencies", ["tinyfl", "evil"], "dependencies of its own (evil)"),
        ("project.dependencies", ["tinyfl @ file:///tmp/evil"], "dependencies of its own"),
        ("project.dependencies", ["tinyfl-evil"], "dependencies of its own"),
        ("project.dependencies", ["tinyfl\n--index-url=http://evil"], "dependencies of its own"),
        ("project.optional-dependencies", {"all": ["evil"]}, "'optional-dependencies' in [project]"),
        ("project.dynamic", ["dependencies"], "'dynamic' in [project]"),
        ("project.scripts", {"tinyfl": "evil:main"}, "'scripts' in [project]"),
        ("build-system", {"requires": ["evil"], "build-backend": "evil"}, "'build-system'"),
        ("dependency-groups", {"dev": ["evil"]}, "'dependency-groups'"),
        ("tool.uv", {"index-url": "http://evil"}, "'uv' in [tool]"),
        ("tool.uv.sources.tinyfl", {"path": "/tmp/evil"}, "'uv' in [tool]"),
        ("tool.flwr.federations", {"default": "x"}, "'federations' in [tool.flwr]"),
        ("tool.flwr.app.flwr-version-target", "1.0", "'flwr-version-target' in [tool.flwr.app]"),
        ("project.version", "1/../../../../tmp", "its version is"),
        ("project.name", "../evil", "its name is"),
        ("tool.flwr.app.publisher", "..", "its publisher is"),
        ("tool.flwr.app.publisher", 7, "its publisher is"),
        ("project", {}, "its name is"),
        ("project", "x", "has no table [project]"),
        ("tool.flwr.app", None, "has no table [tool.flwr.app]"),
    ],
)
def test_an_app_that_says_more_than_a_known_one_is_refused(where: str, value: Any, why: str) -> None:
    assert why in why_refused(bundle(changed(where, value)), NONE)


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


STRANGE = {
    "a pyproject.toml twice": zipped([("pyproject.toml", PYPROJECT), ("pyproject.toml", b"evil")]),
    "a list of contents twice": zipped([("pyproject.toml", PYPROJECT), (".info/CONTENT", b"")]),
    "a link": zipped([(entry("pyproject.toml", stat.S_IFLNK | 0o777), PYPROJECT)]),
    "a link beside": zipped([("pyproject.toml", PYPROJECT), (entry("tinyfl", stat.S_IFLNK | 0o777), b"/tmp/evil")]),
    "a path that escapes": zipped([("pyproject.toml", PYPROJECT), ("../evil.py", b"")]),
    "a whole path": zipped([("pyproject.toml", PYPROJECT), ("/tmp/evil.py", b"")]),
    "the same file by another path": zipped([("pyproject.toml", PYPROJECT), ("./pyproject.toml", b"")]),
    "a name that is cut": zipped([(entry("pyproject.toml", 0), PYPROJECT), ("x", b"")]).replace(b"x", b"\0"),
    "a bundle within": zipped([("pyproject.toml", PYPROJECT), ("inner.zip", bundle())]),
    "no pyproject.toml": zipped([]),
    "a list of another machine's files": zipped([("pyproject.toml", PYPROJECT)], content="/etc/passwd,0,0"),
    "a list with more in it": zipped([("pyproject.toml", PYPROJECT)], content=f"{LISTED}\n../x,0,0"),
    "a bomb": bundle(PYPROJECT + b"#" * (1 << 20)),
    "nests": bundle(PYPROJECT + b"x = " + b"[" * 30_000),
    "no TOML": bundle(b"\xff\xfe"),
    "nothing": b"",
    "half of it": bundle()[:-40],
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_bundle_is_refused(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert why_refused(STRANGE[kind], NONE)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(bundle()) - 1), st.integers(0, 255)), max_size=3), st.integers(0, 40))
def test_what_flower_unpacks_of_a_known_app_is_its_settings_alone(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int
) -> None:
    from flwr.cli.install import install_from_fab

    app = bytearray(bundle())
    for place, value in changes:
        app[place] = value
    app = app[: len(app) - cut] if cut else app
    if why_refused(bytes(app), NONE):
        return
    home = tmp_path / hashlib.sha256(app).hexdigest()
    try:
        install_from_fab(bytes(app), home, skip_prompt=True)
    except Exception:
        assert not home.exists()  # Flower refuses it too
        return
    (unpacked,) = (home / "apps").iterdir()
    assert [path.name for path in home.rglob("*") if path.is_file()] == ["pyproject.toml"]
    assert (unpacked / "pyproject.toml").read_bytes() == PYPROJECT


def test_an_app_that_the_operator_listed_runs_and_only_that(tmp_path: Path) -> None:
    theirs, other = bundle(files={"own.py": "1"}), bundle(files={"own.py": "2"})
    why = why_refused(theirs, NONE)
    file = tmp_path / "allowed.toml"
    file.write_text(why[why.index("apps = [") : why.index("]") + 1].upper().replace("APPS", "apps"))  # the cure, as it stands
    assert why_refused(theirs, read_allowed(file)) == ""
    assert why_refused(other, read_allowed(file))


def test_folders_start_at_the_lists_own_and_without_a_list_runs_is_the_one(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "allowed.toml"
    file.write_text('folders = ["mine", "/srv/../srv/data"]')
    assert read_allowed(file).folders == (tmp_path / "etc" / "mine", Path("/srv/data"))
    file.write_text("folders = []")
    assert read_allowed(file).folders == ()
    file.write_text("")
    assert read_allowed(file) == read_allowed() == Allowed(frozenset(), (tmp_path / "runs",))


@pytest.mark.parametrize(
    "text",
    [
        "apps = 1",
        'apps = "0"',
        'apps = ["0"]',
        "apps = [0]",
        'folders = "runs"',
        "folders = [1]",
        'folders = [""]',
        "extensions = 1",
        'extensions = "sensors"',
        "extensions = [1]",
        "x = 1",
        "[",
    ],
)
def test_a_file_that_is_no_allow_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "allowed.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"allowed\.toml"):
        read_allowed(tmp_path / "allowed.toml")
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        read_allowed(tmp_path / "absent.toml")


@pytest.fixture
def folders(tmp_path: Path) -> Allowed:
    """`runs` is allowed; in it, links lead out of it and to another place in it."""
    (tmp_path / "runs" / "inner").mkdir(parents=True)
    (tmp_path / "runs" / "out").symlink_to("/etc")
    (tmp_path / "runs" / "back").symlink_to(tmp_path / "runs" / "inner")
    (tmp_path / "runs-of-others").mkdir()
    return read_allowed()


@pytest.mark.parametrize("key", ["out", "resume", "data", "network"])
@pytest.mark.parametrize(
    "path",
    ["/etc/x", "x", "runs/../x", "runs/out/x", "runs-of-others/x", "runs/back/../../../x", "../runs/x", "~/x", "runs/\0/x"],
)
def test_a_path_outside_the_folders_is_refused(folders: Allowed, key: str, path: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key} is"):
        refuse_paths({key: f"{path}.keras"}, folders)


@pytest.mark.parametrize("path", ["runs/x", "runs/inner/../x", "runs/back/x", "./runs/deep/er/x", "{}/runs/x"])
def test_a_path_inside_the_folders_passes_and_so_does_what_is_no_path(folders: Allowed, tmp_path: Path, path: str) -> None:
    inside = path.format(tmp_path)
    refuse_paths({"out": inside, "data": inside, "network": f"{inside}.h5", "resume": ""}, folders)
    refuse_paths({"network": "mlp-8", "data": None, "task": "/etc/passwd"}, folders)


def test_the_cure_for_a_path_is_one(folders: Allowed, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_paths({"data": "/srv/of/ours.npz"}, folders)
    said = str(refused.value)
    (tmp_path / "allowed.toml").write_text(said[said.index("folders = [") : said.index("]") + 1])
    refuse_paths({"data": "/srv/of/ours.npz"}, read_allowed(tmp_path / "allowed.toml"))
