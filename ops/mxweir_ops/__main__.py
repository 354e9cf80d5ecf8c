"""`python -m mxweir_ops`, the same as the program `mxweir`."""

import sys

from mxweir_ops.cli import main

sys.exit(main())
