"""A lending library as a world: tools and tables, policy, problems, and the scripted people who play it."""
