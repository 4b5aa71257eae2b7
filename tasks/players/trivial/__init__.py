"""Agents without a model, that problems are held against: the oracle must solve each, the constant ones must solve none."""
