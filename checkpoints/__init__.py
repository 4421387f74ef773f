"""Files that contain a model: our format, the official format, encoder weights, preprocessing metadata."""
