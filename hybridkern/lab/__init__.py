"""The laboratory: what trains, downloads, plots and prints. Nothing of the library imports it."""
