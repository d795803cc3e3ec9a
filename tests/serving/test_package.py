"""The package itself: what its import costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_serving_imports_no_library() -> None:
    """Every `import serving.<module>` runs the package's `__init__`, also from modules that need no torch."""
    loaded = "import sys, serving; print(*{'torch', 'tritonclient', 'numpy', 'polars'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", loaded], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
