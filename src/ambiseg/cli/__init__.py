"""The command line: one module per verb, each imported only when it is used.

Parsing needs tyro and the settings dataclasses only; torch and Lightning are imported inside the verbs, after
the words of the command have turned out to make sense, so that help and typing errors are answered at once.
"""
