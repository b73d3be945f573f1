"""One recipe for each experiment: what is tried, and what it says about a claim. Knows the lab; nothing of commands."""
