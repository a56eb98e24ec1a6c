"""Several processes that serve, and one above them that decides: `workers: N`.

    plane     the data plane as the process above has it: tells workers what is in force, hears what they counted
    staff     the worker processes: who there is, and who follows one that died
    doorman   owns the listening sockets there, and hands each connection to the worker that has the fewest
    nursery   makes worker processes, as forks of one that has everything loaded
    worker    one of them: a data plane, and the link to the process above
    door      where a worker takes connections over
    link      how they talk              messages  what they say
    counts    what a worker counted since it last said so      notes     what became of keys, accounts, members
    cells     memory that all share, for what must hold at once: limits

No request waits for another process. What a worker decides alone it decides from what it was told last; what must not
be decided twice (keys, canaries, configurations) is decided above.
"""
