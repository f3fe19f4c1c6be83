"""The course's and the papers' own results beside ours: ``python -m bench.experiments``.

Each experiment is a module that holds one :class:`~bench.experiments.experiment.Experiment`: what
was claimed and where, the runs it consists of, and what its section of the page says of their
outcome. :mod:`~bench.experiments.running` carries runs out, each in a process of its own, and keeps
what came out; :mod:`~bench.experiments.page` writes the page.
"""
