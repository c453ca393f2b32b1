"""Settings for pytest."""

collect_ignore = ["nlmeans/backends/gpu_kernel.py"]  # has no doctests, and cannot be imported without triton
