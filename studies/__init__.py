"""How the shipped pair is made, the paper's tables measured with it, and what its steps cost.

Run from the repository, `python -m studies NAME...`; not a part of the installed package.
"""
