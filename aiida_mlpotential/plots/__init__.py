"""Pictures of stored nodes: reactions with error bars, and the spread of a screening; matplotlib is the extra `plots`.

Nothing here needs a display, changes a global setting of matplotlib or computes: what a picture shows is in a node.
"""
