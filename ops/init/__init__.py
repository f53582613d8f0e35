"""A new project's directory.

``own``: with contracts of its own; ``registry``: with those of a registry; ``every``: what both have. The files are as
they are written, but for ``@name@`` in them and for ``dot-`` in place of a first dot.
"""
