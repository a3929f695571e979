"""`heliostat`, run by the Python that runs this."""

import sys

from heliostat_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
