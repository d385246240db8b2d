"""docxy measured against nginx and docker-registry on one machine: `python bench/run.py --help`.

The law: what is printed was measured in this run, by rules that are the same for every
server; nothing listens beyond loopback, and nothing is left running or on disk.
"""
