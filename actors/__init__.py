"""Tasks on Trio: they receive, ask the decisions in ``dispatcher`` once, and carry out what comes back."""
