"""What the recipes of variational autoencoders with few labels share: settings, models, the task, and results."""
