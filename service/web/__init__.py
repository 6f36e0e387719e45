"""The page that people look at: its files, which hold nothing that is stored.

`source/` has the TypeScript; `static/` has what `python docs/web.py` makes of it, and is all that is served.
"""
