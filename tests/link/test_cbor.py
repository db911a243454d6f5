"""The strict reader of answers, against cbor2 as another decoder."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfl.link import cbor

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.floats() | st.text() | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MAPS = st.dictionaries(st.text(), PLAIN, max_size=5)


def levels(value: object) -> int:
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else None
    return 0 if inner is None else 1 + max(map(levels, inner), default=0)


@given(MAPS.filter(lambda value: levels(value) <= cbor.DEPTH), st.booleans())
def test_plain_values_are_read_as_they_were_written(value: dict[str, object], canonical: bool) -> None:
    assert repr(cbor.decode(cbor2.dumps(value, canonical=canonical))) == repr(
        cbor2.loads(cbor2.dumps(value, canonical=canonical))
    )


@given(MAPS, st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=9)), max_size=3))
def test_what_is_read_of_damaged_bytes_is_what_another_decoder_reads_of_them(
    value: dict[str, object], damage: list[tuple[int, bytes]]
) -> None:
    data = bytearray(cbor2.dumps(value))
    for at, put in damage:
        start = at % len(data)
        data[start : start + len(put)] = put
    try:
        held = cbor.decode(bytes(data))
    except ValueError:
        return
    assert repr(held) == repr(cbor2.loads(bytes(data)))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_map_or_a_value_error(data: bytes) -> None:
    try:
        held = cbor.decode(data)
    except ValueError:
        return
    assert repr(held) == repr(cbor2.loads(data))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a1 61 61 c2 41 01", "the tag 2"), ("a1 61 61 c4 82 1a 01312d00 01", "the tag 4"), ("a1 01 02", "not a text"),
        ("a2 61 61 00 61 61 00", "duplicate"), ("a1 61 61 7f 61 61 ff", "the head 0x7f"), ("a1 61 61", "too early"),
        ("bf 61 61 00", "too early"), ("a0 00", "1 bytes follow"), ("80", "is list, not a map"), ("", "too early"),
        ("a1 61 61 f7", "the head 0xf7"), ("a1 61 61 ff", "the head 0xff"), ("a1 61 61 9b ffffffffffffffff 00", "too early"),
        ("a1 61 61" + "81" * 8 + "00", "more than 8 levels"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_named(data: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        cbor.decode(bytes.fromhex(data))


def test_definite_and_indefinite_maps_and_arrays_are_alike() -> None:
    assert (
        cbor.decode(bytes.fromhex("bf 61 61 9f 01 02 ff ff"))
        == cbor.decode(bytes.fromhex("a1 61 61 82 01 02"))
        == {"a": [1, 2]}
    )
