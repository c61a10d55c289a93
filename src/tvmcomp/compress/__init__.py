"""Compression: recipes of passes that turn a model into a smaller one, and the one form of every compressed weight."""

from __future__ import annotations
