"""`python -m mori` is the command line."""

import sys

from mori.tools.cli import main

sys.exit(main())
