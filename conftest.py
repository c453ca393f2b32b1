"""Settings for pytest."""

import gc
import importlib.util
import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the core to the test beside them

collect_ignore = [  # have no doctests, and cannot be imported without triton
    "nlmeans/operator/gpu_kernel.py",
    "nlmeans/patches/groups_gpu_kernel.py",
]

for module, library in (
    ("files/formats/itk", "SimpleITK"),
    ("files/formats/tiff", "tifffile"),
    ("cli/nipype", "nipype"),
):
    if importlib.util.find_spec(library) is None:
        collect_ignore.append(f"nlmeans/{module}.py")

# No deadlines: the first use of a kernel compiles it. Few examples in the ordinary suite, which change only with the
# constants in the modules that are loaded; --hypothesis-profile=thorough draws hundreds anew.
CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("suite", max_examples=10, derandomize=True, database=None, **CALM)
settings.register_profile("thorough", max_examples=300, print_blob=True, **CALM)
settings.load_profile("suite")


def pytest_collection_finish() -> None:
    """Take what is imported and collected out of the sight of the garbage collector, which would go through it often."""
    gc.collect()
    gc.freeze()
