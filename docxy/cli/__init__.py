"""The command `docxy`: what an operator asks and does from a terminal.

The law: it is plain synchronous code without a reactor.  What docxy does right now it asks the
running daemon, over the admin socket; it opens no file of the cache.  One module a command.
"""
