"""How long a board's flash lasts under the commits of its store (firmware/SPEC.md, store)."""

from collections.abc import Sequence

from tinyfl.building.boards import Store

RECORD, CLOSING = 20, 56
"""Bytes beside a record's data, and of the record that closes a commit."""

DAYS = 365.25


def commit_bytes(blocks: Sequence[int], page: int) -> int:
    """Bytes that a commit of ``blocks``, each of so many bytes, takes in an area with pages of ``page`` bytes."""
    return -(-(sum(RECORD + block for block in blocks) + CLOSING) // page) * page


def years(store: Store, held: Sequence[int], changed: Sequence[int], per_day: float) -> float:
    """Years until ``store`` has erased its areas as often as their flash survives, if it holds blocks of ``held`` bytes, of
    which each commit writes blocks of ``changed`` bytes, ``per_day`` times a day. Infinite for memory that does not wear.

    An area, once erased, takes all blocks, then commits until it is full; the two areas take turns.

    Raises ValueError if the blocks are too large for an area.
    """
    room = store.areas[0].size - commit_bytes(held, store.page)
    if room < 0:
        raise ValueError(f"{sum(held):,} bytes do not fit an area of {store.areas[0].size:,}")
    commits = 1 + room // commit_bytes(changed, store.page)
    return 2 * store.endurance * commits / per_day / DAYS if store.endurance else float("inf")


def row(store: Store | None) -> list[str]:
    """A board's row in the table of docs/firmware.md: bytes of an area and of a page, erasures, and years with 20 vectors of 64
    floats: one changes each hour, one each minute, all change each hour."""
    if store is None:
        return ["none", "", "", "", "", ""]
    vectors = [4 * 64] * 20
    rates = [(vectors[:1], 24), (vectors[:1], 24 * 60), (vectors, 24)]
    lasts = [years(store, vectors, changed, per_day) for changed, per_day in rates]
    cells = [f"{store.areas[0].size:,}", str(store.page), f"{store.endurance:,}"]
    return cells + [f"{last:,.0f}" if last >= 100 else f"{last:.2g}" for last in lasts]
