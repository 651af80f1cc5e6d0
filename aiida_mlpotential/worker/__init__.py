"""Worker that runs on the compute node: standard library, numpy and ase, and the backend's own library; never AiiDA."""
