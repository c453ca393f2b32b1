"""DICOM: its series are read, with images of several frames taken apart, and written as derived series."""
