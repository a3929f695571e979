"""Scenarios: what a simulated world is made of and asked for, in a file that people can read.

A file's values carry their units. It is checked as manifests are, and every problem is told by its
line and field.
"""
