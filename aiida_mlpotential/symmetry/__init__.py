"""Symmetry of structures, found by libraries where the user submits: space groups (spglib), point groups (pymatgen)."""
