"""A method of the tests for the room generate: a tree of two levels over an agent's turns, as Agent Q searches (https://arxiv.org/abs/2408.07199).

Before its first turn a conversation branches into `width` ones, each of which is played for one turn and branches again; the leaves are
played to their end. A node is worth the mean of its leaves' rewards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.contract.agent import Agent
from tasks.contract.client import Client
from tasks.contract.problem import Problem
from tasks.worlds.api.conversation import Conversation
from tasks.worlds.api.play import Game
from tasks.worlds.api.runtime import World


@dataclass
class Node:
    talk: Conversation
    children: list[Node] = field(default_factory=list)

    @property
    def worth(self) -> float:
        if self.children:
            return sum(child.worth for child in self.children) / len(self.children)
        assert self.talk.played.outcome is not None
        return float(self.talk.played.outcome.reward)


def search(world: World, problem: Problem, agent: Agent, human: Client, width: int, seed: int) -> Node:
    game = Game(world, seed=seed, snapshots=True)
    root = Node(game.open(problem))
    game.play([root.talk], agent, human, until=1)
    root.children = [Node(game.fork(root.talk, 0)) for _ in range(width)]
    game.play([node.talk for node in root.children], agent, human, until=1)
    for node in root.children:
        node.children = [Node(game.fork(node.talk)) for _ in range(width)]
    game.play([leaf.talk for node in root.children for leaf in node.children], agent, human)
    return root
