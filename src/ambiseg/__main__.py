"""``python -m ambiseg`` is the same as ``ambiseg``."""

import sys

from ambiseg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
