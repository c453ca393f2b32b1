"""MONAI transforms over the `nlmeans` engine."""
