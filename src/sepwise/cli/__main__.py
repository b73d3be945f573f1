"""`python -m sepwise.cli`: the same as the command `sepwise`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
