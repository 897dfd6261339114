"""The byte format: layout, nodes, codecs, plans and the writer."""
