"""The paper's search over its baseline CNN: as a grid, and by successive halving."""
