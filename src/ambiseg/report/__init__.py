"""Pictures, tables and the HTML report of a run: what a person looks at.

Everything here is drawn from a `MaskSet` and numbers; nothing trains, predicts or reads a run folder.
"""
