"""Time and memory of what this software computes, beside the textbook way of computing the same."""
