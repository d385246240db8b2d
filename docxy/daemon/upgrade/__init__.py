"""One docxy takes over from another: the ports stay open, and no transfer is cut.

The law: *the old one goes on until the new one serves*.  `successor` is the old one's side, `takeover` the new one's.
"""
