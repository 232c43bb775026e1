"""Training: ground truths, losses, the loop, and taking it up again."""
