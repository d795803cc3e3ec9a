"""`python -m multitron_core.own_clicks` runs `multitron_core.training.own_clicks`."""

import sys

from multitron_core.training.own_clicks import main

if __name__ == "__main__":
    sys.exit(main())
