"""What people bring: folders, archives and tables of pictures, read without torch.

`collection` names the parts; the other modules make them, in this order: `archive` and `tables` turn a container into a
folder, `listing` finds labelled files, `scan` verifies them, `duplicates` groups look-alikes, `report` says what was
found, `splits` divides.
"""
