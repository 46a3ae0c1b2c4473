"""Plain PyTorch formulas of every operator: the ground truth of the tests and the fallback on any device."""
