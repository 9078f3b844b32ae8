"""`python -m effovpr_ros`: the command `effovpr`."""

import sys

from effovpr_ros.cli.main import main

sys.exit(main())
