"""Small worlds that are no conversation, such as mazes or sums: reset, step, reward. None is here yet. Each is the ground of a paper's
claim that needs no tools and no human.

What will stand here, a file an environment, on `tasks.contract` alone, beside `tasks.worlds` and below whoever plays:

- it is reset with a seed, and the same seed gives the same start on every machine;
- a step takes an action and gives the next observation, a reward that is a real number, and whether the episode is over:
  `terminal` when its own rules ended it, `truncated` when only a limit of steps did, so that a value may be carried over the
  limit and not over the end;
- observations and actions are of a closed vocabulary, so that a model can be built over it, and have a form as text, so that a
  way of acting can play it turn by turn;
- it can be copied: `snapshot` gives an immutable value, `restore` goes back to it, in this environment or another one of its
  kind;
- where the best action is computable an oracle plays it; a random player stands beside it, and every figure is printed with both;
- many episodes are stepped at once in numpy, and give what they give one at a time;
- its scripted experts make errors of a declared catalogue at given rates, as the scripted players of roles do.

The folder is empty until the first of them: the interface in code comes with the loop that plays it.
"""
