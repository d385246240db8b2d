"""A programme that does to docxy what bad networks, bad disks and bad nights do, and checks every byte.

    python -m tests.torture --seed 7 --time 180 [phase ...]

Every choice comes from the seed.  Real daemons are driven over real sockets, as black boxes.

    library    what the upstream holds, and so what every right answer is (pure)
    faults     what an upstream can do wrong, and who could heal it (pure)
    upstream   a process that serves the library and does wrong as the seed says
    client     one request, and what came of it
    judge      whether what came is right, excusable, or a mark against the daemon (pure)
    marks      the marks, counted by name; the summary line
    daemons    starts, kills and restarts what is tried: docxy, or docker-registry beside it
    disk       what a cache directory really takes, and what is left over in it
    shim       a library preloaded into the daemon: errors of the disk, steps of the clock
    stage      what every phase needs: a plan from the seed, pulls, judgement
    phases     one module each

docs/reliability.md says how to read what it prints.
"""
