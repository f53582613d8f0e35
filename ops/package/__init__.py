"""A package for services: a project's events, typed, and the publisher, as one wheel under one import name.

``content`` says what is in it, ``vendored`` takes the publisher's modules out of this engine, ``version`` names it,
``wheel`` writes it.
"""
