import sys

from adaflow_core.cli import main

sys.exit(main())
