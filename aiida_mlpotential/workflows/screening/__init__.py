"""Screening: any number of structures against one or several models, in slices, many at once, nothing lost."""
