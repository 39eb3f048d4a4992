"""`python -m lorafy`, for launchers such as `accelerate launch -m lorafy train RECIPE`."""

import sys
from pathlib import Path

# `-m` lets the current folder come before every library: a datasets.py that lies beside the data would run in place of
# the library. Where lorafy itself is imported from there, it has to stay.
if not sys.flags.safe_path and sys.path[:1] == [str(Path.cwd())] and Path(__file__).parents[1] != Path.cwd():
    del sys.path[0]

from .cli import main

if __name__ == "__main__":
    main()
