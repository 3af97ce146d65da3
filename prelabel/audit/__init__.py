"""Labels with a guarantee: a random audit, what it certifies, and the lanes that follow.

    pile -> draw (plan, tasks) -> people -> answers -> certify -> suspects, review -> lanes -> report

The promise and its proof are in `prelabel.audit.certify`.
"""
