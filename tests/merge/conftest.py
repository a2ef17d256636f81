"""Random concurrent transactions that clients could have made, all on one base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from realmframe.changes import Changeset, Instruction
from realmframe.changes import instructions as i
from realmframe.merge import Timed
from tests.plain import PlainRealm
from tests.writer import OBJECTS, SCHEMA, Writer

BASE: list[Instruction] = [*SCHEMA, *OBJECTS]
FIELDS = [one.field for one in SCHEMA if isinstance(one, i.AddColumn) and one.table == "T"]
FIELDS += ["e", "le", "lm", "de", "dm"] * 2  # more of what is deep
_PLAIN = PlainRealm(BASE)
#: Which properties all sides change: few, so that they meet.
FOCUS = st.lists(st.sampled_from(FIELDS), min_size=2, max_size=2, unique=True)


@st.composite
def sides(draw: Any, focus: Sequence[str], most: int = 8, *, schema: bool = True) -> list[list[Instruction]]:
    """Draw what one side does to the base, in one or two transactions."""
    rng = draw(st.randoms(use_true_random=False))
    writer = Writer(_PLAIN.copy(), rng.randrange, focus=focus, schema=schema)
    for _ in range(draw(st.integers(0, most))):
        writer.step()
    middle = draw(st.integers(0, len(writer.made)))
    made = writer.made
    return [made[:middle], made[middle:]] if 0 < middle < len(made) else [made]


@st.composite
def several(draw: Any, count: int, most: int = 8, *, schema: bool = True) -> list[list[list[Instruction]]]:
    """Draw what several sides do to the same base."""
    focus = draw(FOCUS)
    return [draw(sides(focus, most, schema=schema)) for _ in range(count)]


def timed(instructions: Sequence[Instruction], timestamp: int, file_ident: int) -> Timed:
    """Make a changeset as it comes from the other side: decoded from bytes."""
    return Timed(Changeset.decode(Changeset.from_instructions(instructions).encode()), timestamp, file_ident)
