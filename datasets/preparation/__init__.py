"""Converters from published archives to the HDF5 layout of `datasets.lidc`."""
