"""Random damage with a fixed budget of time: bytes of valid artifacts are changed, cut, doubled and spliced."""

import random
import time

import pytest
from byte_damage import case_of, copy_of, files_of
from judge import Judge
from seeds import write_seeds

SEED = 20260101
BUDGET_SECONDS = 6
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFE, 0x08, 0x0A, 0x12)


def mutate(data, chance):
    """Return data with a few random changes."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not result:
            return b""
        at = chance.randrange(len(result))
        kind = chance.randrange(7)
        if kind == 0:
            result[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            result[at] = chance.choice(INTERESTING)
        elif kind == 2:
            del result[at : at + chance.randrange(1, 32)]
        elif kind == 3:
            result[at:at] = result[at : at + chance.randrange(1, 64)]
        elif kind == 4:
            result[at : at + 8] = chance.choice((0, 1, 1 << 31, 1 << 40, (1 << 64) - 1)).to_bytes(8, "little")
        elif kind == 5:
            other = chance.randrange(len(result))
            count = chance.randrange(1, 32)
            result[at : at + count] = result[other : other + count]
        else:
            result[at:at] = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    return bytes(result)


def test_mutated_artifacts_end_right_or_as_one_message(tmp_path):
    seeds = write_seeds(tmp_path / "seeds")
    judge = Judge(seeds["checkpoint"], tmp_path / "scratch")
    chance = random.Random(SEED)
    kinds = sorted(seeds)
    end = time.monotonic() + BUDGET_SECONDS
    problems, done = [], 0
    while time.monotonic() < end and not problems:
        kind = kinds[done % len(kinds)]
        name = f"mutant-{done}-{kind}"
        path = copy_of(seeds[kind], tmp_path / name)
        file = chance.choice(files_of(kind, str(path)))
        file.write_bytes(mutate(file.read_bytes(), chance))
        problems = judge.problems(case_of(kind, name, path, seeds))
        done += 1
    judge.close()
    assert not problems, f"kept in {tmp_path}: {problems}"
    assert done >= len(kinds)


@pytest.mark.parametrize("data", [b"", b"x", bytes(1000)])
def test_mutation_takes_any_bytes(data):
    chance = random.Random(1)
    for _ in range(200):
        mutate(data, chance)
