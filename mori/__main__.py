"""`python -m mori` is the command line."""

import sys

from mori.cli import main

sys.exit(main())
