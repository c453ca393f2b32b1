"""Settings for pytest."""

collect_ignore = [  # have no doctests, and cannot be imported without triton
    "nlmeans/backends/gpu_kernel.py",
    "nlmeans/group_gpu_kernel.py",
]
