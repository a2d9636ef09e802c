"""`python -m tfthaw` is the command."""

import sys

from tfthaw.cli.main import main

sys.exit(main())
