"""``python -m realmframe`` is the command ``realmframe``."""

import sys

from realmframe.cli import main

sys.exit(main())
