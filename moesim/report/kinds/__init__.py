"""Kinds of reports, one module each, found by name. A module holds::

    FILE = "result.json"          the name under which what it shows is saved
    def page(path) -> str         the page of such a file, as HTML
"""
