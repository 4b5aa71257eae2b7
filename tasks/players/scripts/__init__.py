"""The scripts that play roles where a run asks no model: one module for each group of roles, and what they share."""
