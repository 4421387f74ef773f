"""Time and memory of the code that dominates a run, compared with a straightforward implementation (the baseline)."""
