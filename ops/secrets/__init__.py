"""Credentials: what a reference stands for, and what happens when that changes while a worker runs."""
