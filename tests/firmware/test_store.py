"""The store in flash: what was committed last is there, whole, whatever was cut; its bytes are those of SPEC.md."""

import ctypes
import hashlib
import struct

import harness
import peer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

AREA = 4096
MEMORY, FLASH = 4, 10
KINDS = {"words of 1s": (4, 0xFF), "pages of 1s": (256, 0xFF), "rows of 0s": (512, 0)}
Blocks = dict[str, bytes]
SOURCES = [peer.AGENT / f"{name}.c" for name in ("store", "upload", "sha256", "cbor")]


class Record(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 16), ("data", ctypes.c_char_p), ("count", ctypes.c_uint32))


class Store:
    def __init__(self, page: int, erased: int) -> None:
        flags = ["-O1", "-fPIC", "-shared", *peer.FLAGS, f"-DTINYFL_STORE_PAGE={page}", f"-DERASED={erased}"]
        library = harness.compile_once("gcc", [*SOURCES, harness.HERE / "store.c"], *flags)
        self.lib, self.page, self.erased = ctypes.CDLL(str(library)), page, erased
        self.lib.store_commit.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long, ctypes.c_int]
        self.lib.store_flash.restype = self.lib.store_find.restype = ctypes.c_void_p
        self.lib.store_events.restype = self.lib.store_erasures.restype = ctypes.c_long
        self.blank()

    def blank(self) -> None:
        self.lib.store_blank()
        self.lib.store_start()

    def restart(self) -> None:
        self.lib.store_start()

    def commit(self, blocks: Blocks, after: int = -1, cut: bool = True) -> int:
        """The code, or 1 if the power was cut after so many events."""
        records = (Record * len(blocks))(*(Record(name.encode(), data, len(data)) for name, data in blocks.items()))
        return int(self.lib.store_commit(ctypes.addressof(records), len(blocks), after, cut))

    def find(self, name: str) -> bytes | None:
        count = ctypes.c_uint32()
        data = self.lib.store_find(name.encode(), ctypes.byref(count))
        return ctypes.string_at(data, count.value) if data else None

    def all(self, names: list[str]) -> Blocks:
        found = {name: self.find(name) for name in names}
        return {name: data for name, data in found.items() if data is not None}

    @property
    def flash(self) -> bytes:
        return ctypes.string_at(self.lib.store_flash(), 2 * AREA)

    @flash.setter
    def flash(self, content: bytes) -> None:
        ctypes.memmove(self.lib.store_flash(), content, 2 * AREA)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Store:
    return Store(*KINDS[request.param])


@pytest.fixture
def store(kind: Store) -> Store:
    kind.blank()
    return kind


def read(flash: bytes, page: int) -> Blocks:
    """The blocks of the last commit, from SPEC.md alone."""
    newest, found = 0, {}
    for area in (flash[:AREA], flash[AREA:]):
        start, at, blocks, pending, last = 0, 0, {}, {}, 0
        while at + 20 <= AREA:
            name, count = struct.unpack_from("<16sI", area, at)
            at += 20 + count
            if at > AREA or count % 4:
                break
            if name.rstrip(b"\0"):
                pending[name.rstrip(b"\0").decode("latin-1")] = area[at - count : at]
                continue
            if count != 36 or hashlib.sha256(area[start : at - 32]).digest() != area[at - 32 : at]:
                break
            last = struct.unpack_from("<I", area, at - 36)[0]
            blocks |= pending
            pending = {}
            start = at = -(-at // page) * page
        if last > newest:
            newest, found = last, {name: data for name, data in blocks.items() if data}
    return found


WORDS = st.integers(0, 60).map(lambda words: bytes((7 * words + i) % 256 for i in range(4 * words)))
CHANGES = st.lists(st.dictionaries(st.sampled_from(["a", "b/1", "c" * 16, "d"]), WORDS, min_size=1, max_size=3), max_size=40)
NAMES = ["a", "b/1", "c" * 16, "d"]


@settings(max_examples=20, deadline=None)
@given(changes=CHANGES)
def test_the_store_holds_what_was_committed_last_and_lays_it_out_as_the_specification_says(
    kind: Store, changes: list[Blocks]
) -> None:
    kind.blank()
    expected: Blocks = {}
    for made in changes:
        assert kind.commit(made) == 0
        expected = {name: data for name, data in (expected | made).items() if data}
        assert kind.all(NAMES) == expected
    kind.restart()
    assert kind.all(NAMES) == expected == read(kind.flash, kind.page)


OLD = {"a": b"old " * 8, "b/1": bytes(range(200)), "d": b"stays..." * 4}
NEW = {"a": b"new!" * 8, "b/1": b"", "c" * 16: bytes(range(100, 120)) * 2}
AFTER = {name: data for name, data in (OLD | NEW).items() if data}


def cut_everywhere(store: Store, old: Blocks) -> None:
    """Cuts the commit of NEW over ``old`` at every event; after each, the set is whole and takes another commit."""
    before, new = store.flash, {name: data for name, data in (old | NEW).items() if data}
    assert store.commit(NEW) == 0
    events = store.lib.store_events()
    for cut in range(events + 1):
        store.flash = before
        store.restart()
        assert store.commit(NEW, after=cut) == (1 if cut < events else 0)
        store.restart()
        held = old if cut < events else new
        assert store.all(NAMES) == held
        assert store.commit({"d": b"next"}) == 0
        store.restart()
        assert store.all(NAMES) == held | {"d": b"next"}


def fill(store: Store) -> Blocks:
    """Commits until the next one must move to the other area; what is held."""
    store.commit(OLD)
    erasures = store.lib.store_erasures()
    for number in range(AREA):
        before = store.flash
        assert store.commit({"d": struct.pack("<8I", *[number] * 8)}) == 0
        if store.lib.store_erasures() > erasures:
            break
    store.flash = before
    store.restart()
    return store.all(NAMES)


def test_a_cut_at_every_event_of_a_commit_leaves_the_old_set_or_the_new(store: Store) -> None:
    assert store.commit(OLD) == 0
    cut_everywhere(store, OLD)


def test_a_cut_at_every_event_of_the_move_to_the_other_area_leaves_the_old_set_or_the_new(store: Store) -> None:
    fill(store)
    store.commit(NEW)
    held, erasures = fill(store), store.lib.store_erasures()  # the other area now has an older log
    cut_everywhere(store, held)
    assert store.lib.store_erasures() > erasures + 1


def test_two_cuts_in_a_row_lose_nothing(store: Store) -> None:
    store.commit(OLD)
    before = store.flash
    store.commit(NEW)
    events = store.lib.store_events()
    for first in range(0, events, 29):
        store.flash = before
        store.restart()
        store.commit(NEW, after=first)
        store.restart()
        store.commit(NEW, after=-1)
        for second in range(0, store.lib.store_events(), 17):
            store.flash = before
            store.restart()
            store.commit(NEW, after=first)
            store.restart()
            assert store.commit(NEW, after=second) == 1
            store.restart()
            assert store.all(NAMES) == OLD


def test_flash_that_fails_is_refused_and_the_last_commit_stays(store: Store) -> None:
    assert store.commit(OLD, after=0, cut=False) == FLASH  # the first erase
    assert store.commit(OLD) == 0
    assert store.commit(NEW, after=3, cut=False) == 0  # moves to the other area
    assert store.all(NAMES) == AFTER
    store.blank()
    fill(store)
    held = store.all(NAMES)
    assert store.commit(NEW, after=0, cut=False) == FLASH
    assert store.commit(NEW, after=3, cut=False) == FLASH
    assert store.all(NAMES) == held
    assert store.commit(NEW | {"d": OLD["d"]}) == 0
    assert store.all(NAMES) == AFTER


def test_what_is_there_is_not_written_again(store: Store) -> None:
    store.commit(OLD)
    before = store.flash
    assert store.commit(OLD) == store.commit({"c" * 16: b""}) == store.commit({}) == 0
    assert store.flash == before


def test_a_set_too_large_for_an_area_is_refused_and_nothing_is_lost(store: Store) -> None:
    most = AREA - 20 - 56
    assert store.commit({"a": bytes(most + 4)}) == MEMORY
    assert store.commit({"a": bytes(range(256)) * 8}) == 0
    assert store.commit({"b/1": bytes(2048)}) == MEMORY
    store.restart()
    assert store.all(NAMES) == {"a": bytes(range(256)) * 8}
    assert store.commit({"a": bytes(most)}) == 0  # replaces what would not fit beside it
    store.restart()
    assert store.all(NAMES) == {"a": bytes(most)}


def test_any_bit_that_is_lost_loses_a_commit_and_no_more(store: Store) -> None:
    store.commit(OLD)
    first = store.flash
    store.commit(NEW)
    second = store.flash
    written = [at for at in range(AREA) if first[at] != second[at]]
    for at in written[::9]:
        store.flash = second[:at] + bytes([second[at] ^ 0x10]) + second[at + 1 :]
        store.restart()
        assert store.all(NAMES) == OLD


@given(flash=st.binary(max_size=300), at=st.integers(0, 2 * AREA - 300))
@settings(max_examples=30, deadline=None)
def test_any_bytes_in_flash_are_read_as_no_commit_or_as_one_that_stands(kind: Store, flash: bytes, at: int) -> None:
    kind.blank()
    kind.commit(OLD)
    whole = kind.flash
    kind.flash = whole[:at] + flash + whole[at + len(flash) :]
    kind.restart()
    assert kind.all(NAMES) == read(kind.flash, kind.page)
    assert kind.commit(NEW) == 0
    assert kind.find("a") == NEW["a"]
