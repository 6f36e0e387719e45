"""Shape types are checked in the whole test run; data that only the project's machines have is found here."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)  # the workers of the test run share the cores, and so do the processes they start
    os.environ["OMP_NUM_THREADS"] = "1"

# Inner functions that are called up to millions of times: those of `leiden` have no shapes in their types, those of the
# samplers are checked on short runs (tests/analysis/test_sampling.py), which would take six times as long with all.
_CALLED_OFTEN = ("leiden", "sampling", "curvature", "chains", "landscape")
_CHECKED = [
    f"interbasis.analysis.{path.stem}"
    for path in sorted((Path(__file__).parents[1] / "analysis").glob("*.py"))
    if path.stem not in ("__init__", *_CALLED_OFTEN)
]
_hook = install_import_hook(_CHECKED, "beartype.beartype")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with trained networks and reference results, named by INTERBASIS_TEST_DATA."""
    folder = os.environ.get("INTERBASIS_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        message = "INTERBASIS_TEST_DATA names no folder: tests on real trained networks are SKIPPED"
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    return Path(folder)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
