"""Models behind one interface. A request goes down through one file after another, and its reply comes up again:

    spec.py      a name on the command line becomes a Spec
    stack.py     the layers are built
    model.py     Roles.chat: choice of the model, retry of bad answers
    budget.py    the cap on calls, and the switch that ends a run
    journal.py   the record of every reply that was paid for; database.py is its file, salvage.py reads a damaged one
    limiter.py   concurrency, and the retry policy of transport
    endpoint.py  a server; or local/ (trained weights), replay.py (recorded replies), sim/ (the procedural teacher)

call.py holds what passes between the layers: Call, Reply and Completion.
"""
