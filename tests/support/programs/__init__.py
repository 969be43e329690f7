"""Programs that tests start as processes of their own and that import the product: files, so that they move with it.

A program runs with `-W error`, from any directory, by its path (`program` of the harness).
"""
