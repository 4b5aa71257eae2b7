"""`cairn trace`: from an alias, a version, a run, a result or a row down to what it was made of, as the stored records say it.

`find` gives the trail of a name; `text` and `page` set it for people, `Trail.document` for scripts. Nothing is guessed: what no record
says is listed as missing, with where it would come from.
"""

from __future__ import annotations
