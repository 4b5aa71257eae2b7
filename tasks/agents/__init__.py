"""Ways of acting: how a player is asked until it has acted. The rooms `generate`, `rl` and `evaluate` play through it,
each step in the way that `<step>.agents.method` names.

A way is a module with TITLE, PAPER, SLUG, `Params` and `agent(player, params) -> Agent`: an agent (`tasks.contract.agent.Agent`) that
asks the player as often as it likes. It has the player's `name` and a `capacity` that leaves the player room: a way that keeps two
tries of a conversation open has half of it. A conversation has another name with the player for each try; `Agent.resume` brings a try
to where the kept one is, token by token, so that what was played can be trained on.
"""
