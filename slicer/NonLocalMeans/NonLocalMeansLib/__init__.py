"""What the module NonLocalMeans for 3D Slicer does outside of Slicer."""
