"""Data nodes: models, sets of structures and results, each as flat files with filterable attributes."""
