"""Checks: what a Dockerfile's author could do better, said while it is built or on its own.

`values` has the words of this room (rule, hit, finding); `walk` goes through the stages once and makes a `view`, so
that a rule only has to look; `rules/` holds the rules by theme, `ruleset` lists them; `pragmas` reads what the author
asked to be left alone; `run` puts it together; `report` and `sarif` write it down. Pure: whatever a rule may know of
the world is handed in with `view.CheckOptions`.
"""
