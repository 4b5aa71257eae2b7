"""Blueprints: drawn, drafted, proven, gated, recombined and counted; the human that speaks in conversations about them."""
