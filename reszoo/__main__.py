"""`python -m reszoo`."""

import sys

from reszoo.cli.main import main

sys.exit(main())
