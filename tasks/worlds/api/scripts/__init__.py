"""What a world's author writes scripted people with: phrases, drafts of problems, the human and the agent."""
