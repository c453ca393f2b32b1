"""The non-local means operator, and the backends that compute it."""

BACKEND_NAMES = ("cpu", "gpu", "loop", "full", "windowed")
"""Names of the backends of this package. They are here so that they can be listed without importing torch."""
