"""Exact codes, generated from their mathematics: lattices, quaternions, finite fields."""
