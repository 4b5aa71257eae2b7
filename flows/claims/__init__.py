"""Claims: whether a paper's central statement holds here, by a rule that stood in the paper's file before anything ran.

`declaration.py` is what a paper's file states, `results.py` the committed file of what was measured, `verdict.py` what became of it,
`standing.py` whether the code is still the one that was measured, `page.py` what is published.
"""
