"""CPU training compared with other libraries and with the matrix products alone: ``make bench``.

Every contestant trains in its own process. The processes take turns, and the others sleep
meanwhile, so that other load on the machine affects all alike and idle threads of one library do
not slow another. A turn is a whole call as a user would write it, of one or more epochs.
``python -m bench.cpu --help`` lists the options.
"""
