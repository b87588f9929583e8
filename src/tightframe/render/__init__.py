"""Documents in one format each: every module has `render(document)`, and loops over the document's sections."""
