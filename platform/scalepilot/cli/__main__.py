"""`python -m scalepilot.cli`."""

import sys

from scalepilot.cli import main

sys.exit(main())
