"""Starts the command line: `python -m adaflow_core`."""

import sys

from adaflow_core.cli.main import main

sys.exit(main())
