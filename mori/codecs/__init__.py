"""Codecs, one file a library; each is imported on first meeting one of its types."""
