"""Renderers of documents, one module per format.

A module named after a format has `render(document)`, which loops over the document's sections; the others draw parts.
"""
