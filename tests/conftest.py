"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# No test is timed: a busy machine is no failure, and some first calls compile. Else as the surroundings have it: in CI
# hypothesis takes the same examples each time.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")
