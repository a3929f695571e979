"""The evaluation: what is run, what is held against what is published, and the document of it.

Each section runs its studies in a campaign and returns text, pictures and goals. The document is
made whole from them, so nothing in it is older than the rest.
"""
