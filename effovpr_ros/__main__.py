"""`python -m effovpr_ros`: the command `effovpr`."""

import sys

from effovpr_ros.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
