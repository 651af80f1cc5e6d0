"""Calculation jobs: nodes in, one job file and one array file out."""
