"""Parts of the training script: where a training starts, and how it is validated. Arrows run from it to all others."""
