"""Benchmark of postergenre and four other frameworks; see README.md. Not part of the package."""
