"""Runs many seeds: ``python -m tests.simulation --seeds 0:1000``; ``--trace`` shows what happened where one fails.

With ``--kill a`` (or ``b``, or ``server``) each seed is run again and again without other kills: in the first world
that process dies at the first operation of its disk, in the next one at the second, until it lives to the end.

Seeds from 100000 on draw features as well (programs of several ages, asymmetric objects, properties of every type,
tokens that end, two processes on one realm); ``--with growth,tokens`` gives each world just these.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

from tests.simulation.features import known
from tests.simulation.world import SimulationFailure, World


def main() -> int:
    """Run; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0:100", help="first:last+1, or one seed")
    parser.add_argument("--kill", metavar="NAME", help="kill a process at each operation of its disk")
    parser.add_argument(
        "--with", dest="features", metavar="NAMES", help=f"features of each world: {', '.join(known())}"
    )
    parser.add_argument("--short", action="store_true", help="forty steps each")
    parser.add_argument("--trace", action="store_true", help="print what happened in worlds that failed")
    parser.add_argument("--hash", action="store_true", help="print a hash of each world's trace")
    wanted = parser.parse_args()
    count, failed, begun = 0, [], time.process_time()
    changes: dict[str, Any] = {} if wanted.features is None else {"features": tuple(wanted.features.split(","))}
    if wanted.short:
        changes |= {"phases": 1, "steps": 40}
    for name, world in _worlds(wanted.seeds, wanted.kill, changes):
        if count and count % 50 == 0:
            spent = time.process_time() - begun
            print(f"{count} worlds, {len(failed)} failed, {spent:.0f} s", file=sys.stderr, flush=True)
        count += 1
        try:
            world.run()
        except SimulationFailure as fault:
            failed.append(name)
            if wanted.trace:
                print("\n".join(world.trace))
                traceback.print_exception(fault)
            print(f"FAILED {name}: {str(fault)[:2000]}", flush=True)
        if wanted.hash:
            print(name, world.digest, flush=True)
    spent = time.process_time() - begun
    print(f"{count} worlds, {len(failed)} failed {failed}, {spent:.1f} s of CPU time")
    return 1 if failed else 0


def _worlds(seeds: str, kill: str | None, changes: dict[str, Any]) -> Iterator[tuple[str, World]]:
    first, _, last = seeds.partition(":")
    for seed in range(int(first), int(last) if last else int(first) + 1):
        if kill is None:
            yield str(seed), World(seed, **changes)
            continue
        for operations in itertools.count():
            world = World.with_one_kill(seed, kill, operations, **changes)
            yield f"{seed}, {kill} at {operations}", world
            if not any(f" {kill}: killed" in line for line in world.trace):
                break


if __name__ == "__main__":
    sys.exit(main())
