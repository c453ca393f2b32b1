"""The napari plugin over the `nlmeans` engine."""
