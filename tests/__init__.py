"""docxy's tests.

The law: what a test starts does not see what this process imports.  `trial -j` hands its own path to its workers in
PYTHONPATH; with that, pip takes for installed what is so only here.
"""

import os

os.environ.pop("PYTHONPATH", None)
