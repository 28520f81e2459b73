"""Raw files of any layout to a prepared file, and from it to batches.

``readers`` (or ``synthetic``, which draws) give faces, ``preparation`` decodes them, ``storage`` keeps them as one
file, ``loading`` makes batches. What is called original here comes from the original experiment, see `fer.labels`.
"""
