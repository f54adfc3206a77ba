"""Kinds of reports, one module each, found by name.

A module says which saved file it shows (``FILE = "result.json"``), and has a function ``page(path) -> str`` that turns
such a file into HTML.
"""
