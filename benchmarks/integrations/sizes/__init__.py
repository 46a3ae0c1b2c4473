"""Small models of other libraries over dimensions and batch sizes: whether anything that is accelerated is slower."""
