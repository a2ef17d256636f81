"""Runs many seeds: ``python -m tests.simulation --seeds 0:1000``; ``--trace`` shows what happened where one fails."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulation.world import SimulationFailure, World


def main() -> int:
    """Run; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="first:last+1, or one seed")
    parser.add_argument("--trace", action="store_true", help="print what happened in worlds that failed")
    parser.add_argument("--hash", action="store_true", help="print a hash of each world's trace")
    wanted = parser.parse_args()
    first, _, last = wanted.seeds.partition(":")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    failed, begun = [], time.process_time()
    for number, seed in enumerate(seeds):
        if number and number % 50 == 0:
            print(
                f"{number} seeds, {len(failed)} failed, {time.process_time() - begun:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        world = World(seed)
        try:
            world.run()
        except SimulationFailure as fault:
            failed.append(seed)
            if wanted.trace:
                print("\n".join(world.trace))
                traceback.print_exception(fault)
            print(f"FAILED {str(fault)[:2000]}", flush=True)
        if wanted.hash:
            print(seed, world.digest, flush=True)
    spent = time.process_time() - begun
    print(f"{len(seeds)} seeds, {len(failed)} failed {failed}, {spent:.1f} s of CPU time")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
