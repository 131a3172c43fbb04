"""The fuzz targets, for a few seconds and with the same mutations each time."""

from __future__ import annotations

import random

import fuzz
import pytest

TOKENS = (b'"', b"{", b"]", b"\\u0000", b"NaN", b"-1", b"1e999", b"\xff", b"\x00" * 8, b"\xff" * 8, b"..", b"/")


def mutated(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) or 1)
        match dice.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[at : at + dice.randint(1, 40)]
            case 2:
                changed[at:at] = dice.choice(TOKENS)
            case 3:
                changed[at:at] = changed[at : at + dice.randint(1, 40)]
            case _:
                changed[at : at + dice.randint(1, 9)] = dice.randbytes(dice.randint(1, 9))
    return bytes(changed)


@pytest.mark.parametrize("reader", range(len(fuzz.READERS)))
def test_mutations(reader: int) -> None:
    seed = fuzz.seeds()[reader]
    fuzz.READERS[reader][0](seed[1:])  # what is mutated is good
    dice = random.Random(reader)
    for _ in range(60):
        fuzz.check(seed[:1] + mutated(seed[1:], dice))
