"""`python -m tasks.worlds.adapters.object_worker`: one object in a process of its own (`tasks.worlds.adapters.object_processes`).

It reads and writes pickles, which its parent alone sends.
"""

from __future__ import annotations

import os
import pickle
import sys

from tasks.contract.params import BadInput
from tasks.worlds.adapters.foreign_state import SourceFailed
from tasks.worlds.adapters.object_processes import received, send
from tasks.worlds.adapters.objects import Objects
from tasks.worlds.api.tools import Refused


def main() -> None:
    """Answer calls until nobody sends any more. What the objects print goes to standard error."""
    out, source = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)
    try:
        objects = Objects(**pickle.loads(received(source)))
        send(out, None)
        while True:
            token, name, arguments, kind = received(source)
            try:
                answer, after = objects.call(objects.saved(token), name, arguments, kind)
                send(out, ("answer", answer, after.token))
            except Refused as refusal:
                send(out, ("refused", str(refusal), None))
            except (SourceFailed, BadInput) as error:
                send(out, ("failed", str(error), None))
    except EOFError:
        return


if __name__ == "__main__":
    main()
