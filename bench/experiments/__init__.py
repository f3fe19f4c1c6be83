"""Published results, repeated with xpnet: ``python -m bench.experiments``.

They are those of papers and of Andrew Ng's Deep Learning Specialization (deeplearning.ai,
Coursera), here called the course. Each experiment is a module with one
:class:`~bench.experiments.experiment.Experiment`: the claim and its source, the runs, and the
section of the page. :mod:`~bench.experiments.running` runs them, each in its own process, and keeps
their outcomes; :mod:`~bench.experiments.page` writes the page.
"""
