"""mori for Dask."""
