"""Training on the CPU beside its peers and beside its own matrix products: ``make bench``.

Every contestant trains in a process of its own, and they take turns: one trains while the others
sleep, round after round, so that what disturbs one disturbs the others, and no library's idle
threads disturb another's work. A turn is a whole call that a user would make, one or more epochs.
``python -m bench.cpu --help`` tells what can be asked for.
"""
