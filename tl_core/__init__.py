"""Transfer learning for image classification: the core under the page, the command line and Python.

Importing this package has no effects and loads no torch.
"""

__version__ = "0.1.0"
