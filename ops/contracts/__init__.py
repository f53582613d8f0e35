"""Contracts on the desk: checked before they are merged, compared, ended, and read where there are no files."""
